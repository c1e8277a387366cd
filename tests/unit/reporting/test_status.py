"""The status: everything in one event, and 24 rows of a terminal."""

from datetime import UTC
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from fakes.overview_facts import DAY, NOW, backup, domain_run, facts, guest, run, target
from fakes.recorded_run import HOSTILE, summary
from virtbackup_async.api.virtbackup import open_virtbackup
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.survey.timers import parse_timers
from virtbackup_async.events import ListedRun, StatusShown, Timer
from virtbackup_async.model.facts import Leftover, RunningBackup
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.reporting.past_runs import last_of_each, listed_run
from virtbackup_async.reporting.status import status_of

TIMERS = (Timer("virtbackup-backup.timer", NOW + DAY),)


def status(*guests, **different):
    return status_of(build_overview(facts(*guests, **different), UTC), TIMERS)


def printed(*events, console=None):
    report, out = reports.status(), StringIO()
    for event in events:
        report.add(event)
    report.print(console(out) if console else text_console(out), summary())
    return out.getvalue().splitlines()


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")


def test_the_status_has_each_guest_and_those_that_are_late():
    shown = status(
        guest("web"), guest("db", [backup(3)]),
        running=[RunningBackup("mail", "x", NOW - 60, "clean", 4711)],
        leftovers=[Leftover("old", "backup x was killed")],
    )  # fmt: skip
    assert [one.guest for one in shown.guests] == ["db", "web"]
    assert [one.guest for one in shown.late] == ["db"]
    (mail,) = shown.running
    assert (mail.domain, mail.backup, mail.doing, mail.pid) == ("mail", "x", "clean", 4711)
    assert (mail.since_s, mail.since_unix) == (60, NOW - 60)
    assert shown.leftovers == ("old: backup x was killed",)
    assert shown.timers == TIMERS
    web = shown.guests[1]
    assert set(web.days) == {"v"}
    assert len({len(one.days) for one in shown.guests}) == 1


def test_what_qualifies_the_sentence_and_what_undoes_the_leftovers():
    command = ("virtbackup", "-c", "/etc/a b.yml", "clean", "-b")
    shown = status(guest("web"), leftovers=[Leftover("old", "x", command)], unclaimed=("lab",))
    lines = printed(shown)
    assert lines[1] == "1 guest is in no group, and not backed up."
    assert "left      old: x: virtbackup -c '/etc/a b.yml' clean -b" in lines


def test_the_rows_are_in_order_of_urgency():
    history = [run(domains=(domain_run(),), nights_ago=1), run(command="clean")]
    overview = build_overview(facts(guest("web"), targets=[target(history=history)]), UTC)
    runs = [listed_run(record) for record in last_of_each(overview.runs)]
    lines = printed(*runs, status_of(overview, TIMERS))
    assert lines[0] == overview.verdict.sentence
    labels = [line.split()[0] for line in lines[1:]]
    assert labels == ["last", "last", "next", "target", "web"]
    assert lines[-1].endswith("v" * 34)
    assert "virtbackup-backup.timer 2026-12-01 08:00" in lines[3]


@pytest.mark.parametrize(
    ("running", "line"),
    [
        (
            RunningBackup("fc-db", "x", NOW - 3600, "backup of group main", 4711),
            "fc-db: backup of group main since 07:00, process 4711",
        ),
        (
            RunningBackup("db", "x", NOW - DAY, pid=7),
            "db: backup since 2026-11-29 08:00, process 7",
        ),
        (RunningBackup("db", "x", NOW - 60), "db: backup since 07:59"),
    ],
)
def test_what_runs_now_is_said_with_its_process(running, line):
    assert f"runs now  {line}" in printed(status(guest("web"), running=[running]))


@pytest.mark.parametrize("guests", [1, 10, 200])
def test_a_terminal_of_24_rows_shows_all_of_it(guests):
    late = [guest(f"late{number}", []) for number in range(guests)]
    lines = printed(status(*late, *(guest(f"g{number}") for number in range(guests))))
    # One more is for the prompt.
    assert len(lines) == 23 or (guests == 1 and len(lines) < 23)
    if guests > 10:
        assert lines[-1].startswith("and ")


def colourful(out):
    return Console(file=out, force_terminal=True, color_system="standard", width=120)


def test_colours_are_blocks_and_without_them_there_are_letters():
    shown = status(guest("web", [backup(night) for night in (5, 0)]))
    coloured, plain = printed(shown, console=colourful)[-1], printed(shown)[-1]
    assert "█" in coloured
    assert "v" not in coloured.rpartition("web")[2].replace("\x1b[", "")
    assert "█" not in plain
    assert plain.count("v") == 2


def test_names_reach_the_terminal_escaped():
    shown = status(guest(HOSTILE, []), running=[RunningBackup(HOSTILE, HOSTILE, NOW, HOSTILE)])
    assert all(line.isprintable() for line in printed(shown))


@pytest.mark.parametrize("name", ["x" * 200, "漢字" * 100, "漢字", "e\u0302", "web"])
def test_the_days_of_all_guests_are_below_each_other(name):
    lines = printed(status(guest(name), guest("db")))[-2:]
    assert len({cell_len(line) for line in lines}) == 1
    assert [line[-34:] for line in lines] == ["v" * 34] * 2


def test_a_target_that_cannot_be_read_is_said():
    shown = status(guest("web"), targets=[target(error="cannot read /mnt/backups")])
    assert shown.targets[0].error == "cannot read /mnt/backups"
    assert any("cannot read /mnt/backups" in line for line in printed(shown))
    assert set(shown.guests[0].days) == {"u"}


async def test_the_method_emits_the_status_and_the_last_run_of_each_command(tmp_path):
    told = []
    config = Config(path=tmp_path / "config.yml", uri="test:///default")
    async with open_virtbackup(config, on_event=told.append) as vb:
        shown = await vb.status()
    assert [event for event in told if isinstance(event, StatusShown)] == [shown]
    assert not [event for event in told if isinstance(event, ListedRun)]


def test_only_the_last_run_of_each_command_counts():
    runs = [run(nights_ago=2), run(nights_ago=1), run(nights_ago=3, command="clean")]
    last = last_of_each(sorted(runs, key=lambda one: one.start))
    assert [one.command for one in last] == ["backup", "clean"]
    assert last[0] == runs[1]


@pytest.mark.parametrize(
    ("output", "units"),
    [
        (b'[{"next":1772331300000000,"unit":"virtbackup-backup.timer"}]', 1),
        (b'[{"next":0,"unit":"virtbackup-backup.timer"},{"unit":"x"},{"next":null}]', 0),
        (b'[{"next":"soon","unit":"x"},{"next":-5,"unit":"x"}]', 0),
        (b"[]", 0),
        (b"", 0),
        (b'{"next": 1}', 0),
        (b"0 timers listed.", 0),
    ],
)
def test_timers_are_read_and_nonsense_is_left_out(output, units):
    timers = parse_timers(output)
    assert len(timers) == units
    if timers:
        assert timers[0] == Timer("virtbackup-backup.timer", 1772331300)
