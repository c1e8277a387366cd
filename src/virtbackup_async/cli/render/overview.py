"""Prints the status in 24 rows: one sentence, what runs, what is late, and the last days.

::

    3 of 42 guests cannot be restored to last night.
    runs now  fc-db: backup of group main since 03:12, process 4711
    late      db (3 days old), ns2 (it has no backup)
    last      backup 2026-07-01 03:00:00 ok: 42 domains, 41.2 GiB read
    next      virtbackup-backup.timer 2026-07-02 03:00
    target    /mnt/backups: 49.8 GiB free, full about 2026-09-14
    db        vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvmfnnn

A block of the last line is a day: green verified or made, yellow not quiesced or not whole, red
failed or damaged. Without colours it is a letter, as in ``--json``.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from virtbackup_async import events
from virtbackup_async.cli.render.console import BAD, FACT, GOOD, LOOK, escaped, room_of
from virtbackup_async.cli.render.lines import INDENT, cut, folded
from virtbackup_async.cli.render.status import run_row
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.reports.status import StatusReport
from virtbackup_async.reporting.text import count

ROWS: Final = 24
_NAMES: Final = 4
_EACH: Final = 4
_LEAST_HEAT: Final = 4
_STYLES: Final = {"good": GOOD, "look": LOOK}
_DAYS: Final = {
    "v": "green", "m": "dark_green", "p": "yellow", "e": "bright_black", "f": "red",
    "d": "bold red", "n": "bright_black", "u": "magenta",
}  # fmt: skip
_FILLED: Final = "█"
_EMPTY: Final = "·"
_UNKNOWN: Final = "?"
_LABEL: Final = len("runs now  ")


def print_status(report: StatusReport, console: Console, _summary: events.Summary) -> None:
    """Print the status, in as many rows as a small terminal has."""
    status = report.status
    if status is None:
        return
    lines = list(folded(console, status.sentence, _STYLES.get(status.standing, BAD)))
    for more in status.more[:_EACH]:
        lines += folded(console, more, FACT)
    for label, text, style in _facts(report, status):
        head = f"{label:<{_LABEL}}"
        lines += folded(console, text, style, head=head, head_style=FACT)
    lines = lines[: ROWS - _LEAST_HEAT]
    lines += _heat(status, console, ROWS - len(lines) - 1)
    for line in lines:
        console.print(line, soft_wrap=True)


def _facts(report: StatusReport, status: events.StatusShown) -> Iterator[tuple[str, str, str]]:
    for running in status.running[:_EACH]:
        yield "runs now", _running(running), ""
    if status.late:
        names = ", ".join(f"{one.guest} ({one.reason})" for one in status.late[:_NAMES])
        more = f" and {len(status.late) - _NAMES} more" if len(status.late) > _NAMES else ""
        yield "late", f"{names}{more}", BAD
    for line in status.unusual[:_EACH]:
        yield "unusual", line, BAD
    for left in status.leftovers[:_EACH]:
        yield "left", f"{left}: {status.undo}" if status.undo else left, BAD
    for run in report.runs[:_EACH]:
        row = run_row(run)
        style = "" if run.exit_code == 0 else BAD
        yield "last", f"{row['command']} {row['started']} {row['result']}", style
    for timer in status.timers[:_EACH]:
        moment = datetime.fromtimestamp(timer.next_unix).astimezone()
        yield "next", f"{timer.unit} {moment:%Y-%m-%d %H:%M}", ""
    for target in status.targets[:_EACH]:
        yield "target", _target(target), BAD if target.error else ""


def _running(running: events.RunningNow) -> str:
    since = datetime.fromtimestamp(running.since_unix).astimezone()
    now = datetime.fromtimestamp(running.since_unix + running.since_s).astimezone()
    moment = f"{since:%H:%M}" if since.date() == now.date() else f"{since:%Y-%m-%d %H:%M}"
    process = "" if running.pid is None else f", process {running.pid}"
    return f"{running.domain}: {running.doing} since {moment}{process}"


def _target(target: events.StatusTarget) -> str:
    if target.error is not None:
        return target.error
    free = "" if target.free_bytes is None else f": {size(target.free_bytes)} free"
    if target.full_unix is None:
        return f"{target.target}{free}"
    full = datetime.fromtimestamp(target.full_unix).astimezone()
    return f"{target.target}{free}, full about {full:%Y-%m-%d}"


def _heat(status: events.StatusShown, console: Console, rows: int) -> Iterator[Text]:
    """Yield a line for each guest, the worst first, as far as there are rows."""
    room, days = room_of(console), max((len(guest.days) for guest in status.guests), default=0)
    # In a narrow terminal the last days are shown, beside half of the width for the names.
    most = max(room - days - len(INDENT), room // 2 - len(INDENT))
    names = [cut(console, escaped(console, guest.guest), most) for guest in status.guests]
    width = max(map(cell_len, names), default=0)
    shown = len(names) if len(names) <= rows else rows - 1
    is_plain = console.color_system is None or console.no_color or console.options.ascii_only
    for name, guest in zip(names[:shown], status.guests, strict=False):
        line = Text(f"{set_cell_size(name, width)}{INDENT}")
        for day in guest.days[-(room - width - len(INDENT)) :]:
            block = _EMPTY if day == "n" else _FILLED
            letter = day if day in _DAYS else _UNKNOWN
            line.append(letter if is_plain else block, "" if is_plain else _DAYS.get(day, ""))
        yield line
    if shown < len(names):
        yield from folded(
            console, f"and {count(len(names) - shown, 'guest')} more, less urgent", FACT
        )
