"""``clean``, ``pin`` and ``unpin`` as typed, against a target on disk; no libvirt."""

import json
import subprocess
import sys
from functools import partial
from io import StringIO

import anyio
import pytest

from fakes.overview_facts import run
from fakes.recorded_run import HOSTILE, summary
from virtbackup_async.catalog.history import FILE, append_run
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.events import BackupRemoved, PendingLeft, PendingUndone, RemovalFailed
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.reporting.outcome import RunOutcome
from virtbackup_async.reporting.sentences import in_words

CONFIG = """
uri: qemu+unix:///session?socket=/nonexistent/libvirt-sock
default: {hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0}
groups:
  main:
    target: %s
    hosts: ["web"]
"""


@pytest.fixture
def web(tmp_path):
    directory = tmp_path / "target" / "web"
    directory.mkdir(parents=True)
    (tmp_path / "config.yml").write_text(CONFIG % directory.parent)
    for day in (1, 2, 3):
        put(directory, day)
    return directory


def put(directory, day, **changed):
    name = f"2026070{day}-030000_3_web"
    raw = {
        "name": name, "domain_id": 3, "domain_name": "web", "domain_xml": "<domain/>",
        "disks": {"vda": f"{name}_vda.raw"}, "version": "0.5.6", "date": 1782874800 + day * 86400,
        "packager": {"type": "directory", "opts": {}},
    }  # fmt: skip
    (directory / f"{name}.json").write_text(json.dumps(raw | changed))
    (directory / f"{name}_vda.raw").write_bytes(b"x" * 70000)
    return name


@pytest.fixture
def command(tmp_path):
    def run(*arguments):
        argv = [sys.executable, "-m", "virtbackup_async", "-c", str(tmp_path / "config.yml")]
        return subprocess.run(
            [*argv, *arguments], capture_output=True, text=True, timeout=30, check=False
        )

    return run


def events(ended, kind):
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    return [line for line in lines if line["event"] == kind]


@pytest.mark.parametrize("name", ["clean", "cl"])
def test_clean_removes_and_says_how_much_is_free(command, web, name):
    ended = command(name)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0].split() == ["domain", "backup", "freed"]
    assert lines[1].split()[:2] == ["web", "20260701-030000_3_web"]
    assert lines[-1].startswith("2 backups removed, 1")
    assert len(list(web.iterdir())) == 2


def test_a_dry_run_is_a_table_with_reasons(command, web):
    ended = command("clean", "--dry-run", "main")
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert lines[0] == ["domain", "backup", "verdict", "stored", "why"]
    assert [line[2] for line in lines[1:4]] == ["goes", "goes", "stays"]
    assert lines[3][-1] == "newest"
    assert " ".join(lines[4]).startswith("2 backups would be removed")
    assert len(list(web.iterdir())) == 6


@pytest.mark.parametrize(
    "words", [("clean", "--dry-run"), ("forget", "--dry-run", "web@20260701-030000_3_web")]
)
def test_a_dry_run_is_in_no_history(command, web, words):
    history = web.parent / FILE
    anyio.run(partial(append_run, StorageLocation.of(web.parent), run(1), create=True))
    before = history.read_bytes()
    ended = command(*words)
    assert ended.returncode == 0, ended.stderr
    assert history.read_bytes() == before
    assert command("clean").returncode == 0
    assert history.read_bytes() != before


def test_damaged_backups_are_in_the_last_line(command, web):
    put(web, 3, verified={"date": 1782874800, "ok": False, "digests": True})
    ended = command("clean")
    assert ended.returncode == 0, ended.stderr
    assert "verify found 1 of its 3 backups damaged" in ended.stderr
    assert ended.stdout.splitlines()[-1].endswith("freed, 1 DAMAGED and not counted")
    assert len(list(web.glob("*.json"))) == 2
    put(web, 4)
    assert "damaged, and a newer one is good" in command("clean", "--drop-d", "--dry-run").stdout
    assert command("clean", "--drop-damaged").returncode == 0
    assert [path.stem for path in web.glob("*.json")] == ["20260704-030000_3_web"]
    assert command("clean", "-b", "--drop-damaged").returncode == 2


def test_json_has_a_verdict_for_each_backup_and_what_was_removed(command, web):
    ended = command("clean", "--json")
    verdicts = events(ended, "clean_verdict")
    assert [verdict["keep"] for verdict in verdicts] == [False, False, True]
    assert len(events(ended, "backup_removed")) == 2
    assert events(ended, "summary")[0]["done"] == ["web"]


def test_what_stays_broken_is_14_with_what_and_why(command, web):
    name = put(web, 4)
    raw = json.loads((web / f"{name}.json").read_text())
    raw["disks"] = {"vda": {"src": "/i/vda.raw", "type": "raw", "snapshot": "/i/vda.1"}}
    (web / f"{name}.json.pending").write_text(json.dumps(raw))
    ended = command("clean", "-b")
    assert ended.returncode == 14
    assert f"web: {name}: NOT CLEANED: libvirt at qemu+unix" in ended.stdout
    assert ended.stderr.splitlines()[-1] == f"virtbackup: could not be cleaned: web ({name})."
    assert command("clean", "-B", "--dry-run").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-b", "-B"), "exclude each other"),
        (("--wait", "soon"), "neither a number of seconds nor 'forever'"),
        (("--wait", "-1"), "neither"),
        (("--wait", "nan"), "neither"),
    ],
)
def test_wrong_usage(command, web, arguments, said):
    ended = command("clean", *arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert len(list(web.iterdir())) == 6


def test_pin_keeps_a_backup_list_shows_it_and_unpin_lets_it_go(command, web):
    ended = command("pin", "main", "web", "--date", "20260701-030000")
    assert (ended.returncode, ended.stdout) == (0, "web: 20260701-030000_3_web: pinned\n")
    assert [line["pinned"] for line in events(command("list", "--json"), "backup")] == [
        True, False, False,
    ]  # fmt: skip
    assert command("list", "web").stdout.count(" pinned") == 1
    assert command("list", "-D", "web").stdout.count(".json  pinned\n") == 1
    assert command("clean").returncode == 0
    assert (web / "20260701-030000_3_web.json").exists()
    said = events(
        command("unpin", "main", "web", "--date", "20260701-030000", "--json"), "pin_changed"
    )
    assert [event["pinned"] for event in said] == [False]
    assert command("clean").returncode == 0
    assert not (web / "20260701-030000_3_web.json").exists()


def test_pinning_what_is_not_there(command, web):
    ended = command("pin", "main", "web", "--date", "20200101-000000")
    assert ended.returncode == 12


LEFT = PendingLeft("main", "web", "b1", "/t/b1.json.pending", "libvirt said no")
STUCK = RemovalFailed("main", "db", "b2", "disk on fire")
BUSY = PendingLeft("main", "busy", "b3", "/t/b3.json.pending", "in use", in_use=True)


def test_the_tally_takes_what_stays_for_14_and_what_is_in_use_for_nothing():
    run_outcome = RunOutcome(lambda _event: None)
    for event in (BackupRemoved("main", "web", "b0", 1), PendingUndone("main", "web", "b"), BUSY):
        run_outcome.emit(event)
    assert run_outcome.summary([], None).exit_code == 0
    assert run_outcome.summary([], None).done == ("web",)
    for event in (LEFT, STUCK):
        run_outcome.emit(event)
    last = run_outcome.summary([], 15)
    assert (last.exit_code, last.failed) == (14, ("web", "db"))
    assert last.error == "could not be cleaned: web (b1), db (b2)"


def test_the_report_escapes_names_and_ends_with_the_totals():
    report, out = reports.clean(dry_run=False), StringIO()
    for event in (BackupRemoved("main", HOSTILE, "b0", 2048), PendingUndone("m", "x", "b"), BUSY):
        report.add(event)
    report.print(text_console(out), summary())
    lines = out.getvalue().splitlines()
    assert "\\x1b[2J" in lines[1]
    assert lines[2:] == [
        "x: undone: b",
        "busy: b3: left for now: in use",
        "1 backup removed, 1 broken undone, 2.0 KiB freed",
    ]
    assert in_words(STUCK) == "db: b2: NOT CLEANED: disk on fire"
