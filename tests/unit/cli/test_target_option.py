"""``--target``: a target alone, without a configuration, a group or libvirt."""

import json
import os
import subprocess
import sys

import pytest

from fakes.overview_facts import run as recorded_run
from fakes.site import DAY_S, Site
from fakes.stored_backup import DATE
from virtbackup_async.catalog.history import append_run
from virtbackup_async.cli.main import virtbackup
from virtbackup_async.model.backup import Packager


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
    await append_run(site.target, recorded_run(), create=True)
    (past,) = events(run("log", "--target", "target", "--json"), "past_run")
    assert past["command"] == "backup"


@pytest.mark.parametrize("command", ["list", "stats", "verify", "log"])
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
    "name", ["list", "show", "diff", "restore", "export", "verify", "stats", "log"]
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
