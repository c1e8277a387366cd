"""``--target``: a target alone, without a configuration, a group or libvirt."""

import json
import os
import re
import subprocess
import sys

import pytest

from fakes.overview_facts import run as recorded_run
from fakes.site import DAY_S, Site
from fakes.stored_backup import DATE
from html_document import Document
from virtbackup_async.catalog.history import append_run
from virtbackup_async.cli.main import virtbackup
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.storage_location import StorageLocation

PENDING = {
    "name": "20260301-021500_3_web", "domain_id": 3, "domain_name": "web",
    "domain_xml": "<domain/>", "disks": {}, "version": "1.1.0", "date": DATE,
    "packager": {"type": "directory", "opts": {}}, "uuid": "b9ef5a09-6e0f-4a44-9e2b-5e5f7a1d2c3b",
}  # fmt: skip


@pytest.fixture
async def site(tmp_path):
    site = Site(tmp_path)
    for day, packager in enumerate(("directory", "zstd", "repository")):
        await site.store(Packager(packager), date=DATE + day * DAY_S)
    await site.store(domain="db server")
    return site


@pytest.fixture
def run(site):
    """Run a command on a host that has no configuration, and no libvirt to connect to."""
    environment = os.environ | {
        "HOME": str(site.root / "nobody"), "XDG_CONFIG_HOME": str(site.root / "nothing"),
        "LIBVIRT_DEFAULT_URI": "qemu+unix:///system?socket=/nonexistent",
    }  # fmt: skip

    def run(*words, code=0):
        argv = [sys.executable, "-m", "virtbackup_async", *words]
        ended = subprocess.run(
            argv, capture_output=True, text=True, cwd=site.root, env=environment, check=False
        )
        assert ended.returncode == code, ended.stderr
        return ended

    return run


def events(ended, kind):
    lines = map(json.loads, ended.stdout.splitlines())
    return [line for line in lines if line["event"] == kind]


def test_a_target_is_listed_and_verified_by_its_path_alone(site, run):
    listed = events(run("list", "--target", "target", "--json"), "backup")
    assert sorted(event["domain"] for event in listed) == ["db server", "web", "web", "web"]
    assert {event["group"] for event in listed} == {str(site.target)}
    verified = events(run("verify", "--target", site.target, "-D", "web", "--json"), "verify_done")
    assert len(verified) == 3
    assert "--target" in run("show", "--target", "target", "web").stdout
    groups = events(run("stats", "--target", site.target, "--json"), "group_stats")
    assert groups[0]["backups"] == 4


async def test_the_runs_of_a_target_are_listed(site, run):
    await append_run(StorageLocation.of(site.target), recorded_run(), create=True)
    (past,) = events(run("log", "--target", "target", "--json"), "past_run")
    assert past["command"] == "backup"


async def test_the_status_says_what_the_target_knows_and_what_it_does_not(site, run):
    ended = run("status", "--target", "target")
    sentence, more = ended.stdout.splitlines()[:2]
    assert sentence.startswith(f"All 2 guests in {site.target} can be restored; the oldest of ")
    assert more.startswith("Without a configuration and libvirt it is not known how old backups")
    (status,) = events(run("status", "--target", "target", "--json"), "status")
    assert {guest["guest"]: guest["max_age_s"] for guest in status["guests"]} == {
        "db server": None, "web": None,
    }  # fmt: skip
    assert (status["standing"], status["late"], status["timers"]) == ("good", [], [])
    assert (status["leftovers"], status["undo"]) == ([], None)
    assert more in status["more"]


@pytest.mark.parametrize(
    ("max_age", "code", "word"), [("9999d", 0, "OK"), ("26h", 2, "CRITICAL"), (None, 3, "UNKNOWN")]
)
async def test_a_monitoring_gives_the_limit_that_a_target_does_not_know(run, max_age, code, word):
    words = ("--max-age", max_age) if max_age else ()
    ended = run("check", "--target", "target", *words, code=code)
    (line,) = ended.stdout.splitlines()
    assert line.startswith(f"VIRTBACKUP {word} - ")
    if max_age:
        assert re.search(r" \| oldest=\d+s;;\d+;0; guests=2;;;0; bad=[02];;0;0;2$", line)
        assert run("check", "web", "--target", "target", *words, code=code)
    else:
        assert "max-age is needed" in line


def test_a_monitoring_is_told_of_a_target_that_is_not_there(run):
    ended = run("check", "--target", "gone", "--max-age", "26h", code=3)
    assert ended.stdout.startswith("VIRTBACKUP UNKNOWN - ")
    assert "gone" in ended.stdout


async def test_the_page_of_a_target(site, run):
    run("report", "--target", "target", "--html", "page.html")
    document = Document((site.root / "page.html").read_text())
    assert f"All 2 guests in {site.target} can be restored" in document.text
    assert "Without a configuration it is not known what stays." in document.text
    assert "Guests in no group" not in document.text
    command = f"virtbackup verify --target {site.target} --not-verified-since 30d"
    assert command in document.text


async def test_an_unfinished_backup_may_be_of_another_host(site, run):
    pending = site.root / "target" / "web" / "20260301-021500_3_web.json.pending"
    pending.write_text(json.dumps(PENDING))
    (status,) = events(run("status", "--target", "target", "--json"), "status")
    assert status["leftovers"] == ["web: backup 20260301-021500_3_web is unfinished"]
    assert status["undo"] is None


@pytest.mark.parametrize("command", ["list", "stats", "verify", "log", "status"])
def test_a_target_that_is_not_there_is_said(run, command):
    ended = run(command, "--target", "gone", code=22)
    assert "gone" in ended.stderr


def test_a_target_and_a_configuration_exclude_each_other(site, run):
    ended = run("-c", "config.yml", "list", "--target", "target", code=2)
    assert "-c and --target exclude each other" in ended.stderr


def test_a_group_cannot_be_named(site, run):
    ended = run("list", "--target", "target", "production", code=12)
    assert "no backup of production" in ended.stderr


@pytest.mark.parametrize(
    "name",
    [
        "list",
        "show",
        "diff",
        "restore",
        "export",
        "verify",
        "stats",
        "log",
        "status",
        "check",
        "report",
    ],
)
def test_all_that_read_take_a_target(name):
    context = virtbackup.make_context("virtbackup", [name, "--help"], resilient_parsing=True)
    _, command, _ = virtbackup.resolve_command(context, [name])
    assert "--target" in {option for param in command.params for option in param.opts}


@pytest.mark.parametrize("name", ["backup", "clean", "forget", "pin", "repair", "doctor"])
def test_none_that_removes_or_backs_up_does(name):
    context = virtbackup.make_context("virtbackup", [name, "--help"], resilient_parsing=True)
    _, command, _ = virtbackup.resolve_command(context, [name])
    assert "--target" not in {option for param in command.params for option in param.opts}
