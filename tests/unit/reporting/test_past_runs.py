"""What ``log`` says of the runs in the histories of the targets."""

from io import StringIO

import pytest

from fakes.overview_facts import NIGHT, domain_run, run
from fakes.recorded_run import HOSTILE, summary
from virtbackup_async.api.virtbackup import open_virtbackup
from virtbackup_async.catalog.history import append_run
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.errors import StorageError
from virtbackup_async.events import ListedRun, Warned
from virtbackup_async.model.run_record import Outcome
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.reporting.past_runs import listed_run


@pytest.fixture
def config(tmp_path):
    targets = [tmp_path / name for name in ("one", "two")]
    for target in targets:
        target.mkdir()
    groups = {target.name: Group(target.name, StorageLocation.of(target)) for target in targets}
    return Config(path=tmp_path / "config.yml", groups=groups)


def printed(*events, ok=True):
    report, out = reports.log(), StringIO()
    for event in events:
        report.add(event)
    report.print(text_console(out), summary(0 if ok else 22))
    return out.getvalue().splitlines()


async def test_the_runs_of_all_targets_are_listed_once_and_the_newest_first(config, tmp_path):
    for nights in (3, 2, 1):
        record = run(nights_ago=nights)
        for group in config.groups.values():
            await append_run(group.target, record, create=True)
    told = []
    async with open_virtbackup(config, on_event=told.append) as vb:
        listed = await vb.log(limit=2)
    assert [one.start_unix for one in listed] == sorted(one.start_unix for one in listed)[::-1]
    assert len(listed) == 2
    assert [event for event in told if isinstance(event, ListedRun)] == list(listed)
    assert listed[0].duration_s > 0


async def test_a_history_that_cannot_be_read_does_not_hide_the_others(config):
    one, two = (group.target.directory for group in config.groups.values())
    await append_run(StorageLocation.of(one), run(), create=True)
    two.rmdir()
    told = []
    async with open_virtbackup(config, on_event=told.append) as vb:
        with pytest.raises(StorageError, match="two"):
            await vb.log()
    assert len([event for event in told if isinstance(event, ListedRun)]) == 1


async def test_damaged_lines_are_counted(config):
    (target, _) = (group.target.directory for group in config.groups.values())
    await append_run(StorageLocation.of(target), run(), create=True)
    with (target / ".virtbackup-history").open("ab") as file:
        file.write(b"{\n")
    told = []
    async with open_virtbackup(config, on_event=told.append) as vb:
        assert len(await vb.log()) == 1
    assert [event.message for event in told if isinstance(event, Warned)]


def past(**different):
    usual = {
        "run": "x", "command": "backup", "host": "h", "version": "1", "duration_s": 62.0,
        "start": "2026-07-01T03:00:00+00:00", "start_unix": NIGHT, "exit_code": 0, "error": None,
        "done": ("web", "db"), "failed": (), "removed": 0, "read_bytes": 1024, "stored_bytes": 0,
    }  # fmt: skip
    return ListedRun(**{**usual, **different})


@pytest.mark.parametrize(
    ("different", "result"),
    [
        ({}, "ok: 2 domains, 1.0 KiB read"),
        ({"done": (), "read_bytes": 0}, "ok"),
        ({"command": "clean", "removed": 3, "done": (), "read_bytes": 0}, "ok: 3 backups removed"),
        (
            {"exit_code": 3, "failed": ("db",), "done": ("web",), "error": "1 of 2 failed"},
            "exit 3: db failed; 1 of 2 failed; 1 domain, 1.0 KiB read",
        ),
        (
            {"exit_code": 12, "error": "no such group", "done": (), "read_bytes": 0},
            "exit 12: no such group",
        ),
        ({"exit_code": 130, "done": (), "read_bytes": 0}, "exit 130"),
    ],
)
def test_the_result_is_in_words(monkeypatch, different, result):
    monkeypatch.setenv("TZ", "UTC")
    assert printed(past(**different))[-1].endswith(f"h     {result}")


def test_nothing_known_is_said_and_names_are_escaped():
    assert printed() == ["no run is known yet"]
    assert printed(ok=False) == []
    text = "".join(printed(past(host=HOSTILE, error=HOSTILE, exit_code=1, failed=(HOSTILE,))))
    assert text.isprintable()


def test_a_domain_that_failed_is_not_among_those_that_are_done():
    domains = (domain_run("web"), domain_run("db", outcome=Outcome.FAILED))
    listed = listed_run(run(domains=domains))
    assert (listed.done, listed.failed) == (("web",), ("db",))
    assert listed.read_bytes == sum(one.read_bytes for one in domains)
