"""Prints the result of a backup, a restore or an export: a table on stdout at the end.

::

    domain  backup                 disks  used      stored   duration  quiesced
    web     20260701-030000_3_web  2      12.0 GiB  4.1 GiB  52 s      yes

    failed: db: the snapshot was refused
    skipped: web vdc: it is a host device
"""

import shlex
from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from virtbackup_async import events
from virtbackup_async.cli.render.console import BAD, FACT, LOOK
from virtbackup_async.model.amounts import duration, size
from virtbackup_async.reporting.reports.run import RunReport
from virtbackup_async.reporting.sentences import reason
from virtbackup_async.reporting.text import count, printable

_MAX_REASON = 30
_HEADS = ("domain", "backup", "disks", "used", "stored", "duration", "quiesced")
_GAP = 2


def print_run(
    report: RunReport, console: Console, summary: events.Summary, *, only_rest: bool = False
) -> None:
    """Print the backups, the restored disks, what failed or was skipped, and the totals."""
    if report.done and not only_rest:
        console.print(_table(report, console.width))
    for restored in report.restored:
        console.print(_restored(restored), soft_wrap=True)
    for defined in report.defined:
        console.print(_defined(defined), soft_wrap=True)
    for exported in report.exported:
        console.print(_exported(exported), soft_wrap=True)
    for skipped in () if only_rest else report.skipped:
        console.print(_line("skipped", _disk(skipped), skipped.reason, FACT), soft_wrap=True)
    _print_lacks(report, console, summary)
    if report.done or report.failed:
        console.print(_totals(report, summary.warnings), soft_wrap=True)
        for line in _facts(report, summary):
            console.print(Text(printable(line), FACT), soft_wrap=True)


def _print_lacks(report: RunReport, console: Console, summary: events.Summary) -> None:
    """Print what failed, and what a signal interrupted."""
    for failed in report.failed:
        if not _is_undone(failed):
            word = "interrupted" if failed.cancelled else "failed"
            console.print(_line(word, failed.domain, reason(failed), BAD), soft_wrap=True)
    for line in _interrupted(report, summary):
        console.print(Text(printable(line), LOOK), soft_wrap=True)


def _is_undone(failed: events.BackupFailed) -> bool:
    return failed.cancelled and not failed.left_pending


def _interrupted(report: RunReport, summary: events.Summary) -> Iterator[str]:
    """Yield what a signal did to the run, in one line."""
    undone = dict.fromkeys(failed.domain for failed in report.failed if _is_undone(failed))
    words = []
    if undone:
        words.append(f"interrupted: {', '.join(undone)} (undone, guests on their own disks)")
    if summary.not_started:
        words.append(f"not started: {', '.join(summary.not_started)}")
    if words:
        yield "; ".join(words)


def _table(report: RunReport, width: int) -> Table:
    """Return all columns, or in a narrow terminal those without the long name of the backup."""
    rows = [_row(done, report.disks.get(done.backup)) for done in report.done]
    needed = sum(max(map(cell_len, column)) + _GAP for column in zip(_HEADS, *rows, strict=True))
    shown = [head for head in _HEADS if head != "backup" or needed <= width]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for head in shown:
        table.add_column(head, overflow="fold")
    for row in rows:
        cells = zip(_HEADS, row, strict=True)
        table.add_row(*(Text(cell) for head, cell in cells if head in shown))
    return table


def _row(done: events.BackupDone, disks: int | None) -> tuple[str, ...]:
    return (
        printable(done.domain),
        printable(done.backup),
        "" if disks is None else str(disks),
        size(done.data_bytes),
        size(done.stored_bytes),
        duration(done.duration_s),
        _quiesced(done),
    )


def _totals(report: RunReport, warnings: int) -> Text:
    words = [f"{count(len(report.done), 'backup')} done"]
    words.append(f"{len(report.failed) - report.cancelled} failed")
    words += [f"{report.cancelled} interrupted"] if report.cancelled else []
    words += [count(warnings, "warning")] if warnings else []
    words += [f"{size(report.read_bytes)} read", f"{size(report.stored_bytes)} stored"]
    return Text(", ".join(words))


def _facts(report: RunReport, summary: events.Summary) -> Iterator[str]:
    """Yield how long the run took, at which speed, and how much space it left."""
    if summary.duration_s:
        speed = size(report.read_bytes / summary.duration_s)
        yield f"took {duration(summary.duration_s)}, {speed}/s"
    for space in report.spaces:
        stored = report.stored_in(space.target)
        runs = space.free_bytes // stored if stored else 0
        enough = f", enough for about {count(runs, 'run')} like this" if runs else ""
        yield f"{size(space.free_bytes)} free in {space.target}{enough}"


def quiesced(answer: bool | None) -> str:  # noqa: FBT001 -- a value of the event, shown as a word
    """Return in a word whether the guest was quiesced; None means a shut-off domain."""
    return {True: "yes", False: "no", None: "shut off"}[answer]


def _quiesced(done: events.BackupDone) -> str:
    """Return the same, with a short reason in brackets; a warning had any longer one."""
    reason, word = printable(done.not_quiesced or ""), quiesced(done.quiesced)
    return f"{word} ({reason})" if 0 < len(reason) <= _MAX_REASON else word


def _disk(skipped: events.DiskSkipped) -> str:
    return f"{skipped.domain} {skipped.disk}"


def _line(word: str, what: str, why: str, style: str) -> Text:
    return Text(f"{word}: {printable(what)}: {printable(why)}", style)


def _exported(done: events.DiskExported) -> Text:
    head = f"{done.backup}: {done.disk} exported to {done.output}"
    return Text(f"{printable(f'{head}: {done.format}')}, {_checked(done)}")


def _checked(done: events.RestoreDone | events.DiskExported) -> str:
    return "verified" if done.verified else "not verified: the backup carries no digest"


def _restored(done: events.RestoreDone) -> Text:
    head = f"{done.backup} restored to {done.target}"
    amount = f"{size(done.data_bytes)} in {duration(done.duration_s)}"
    formats = {found.file: found for found in done.formats}
    lines = [printable(f"  {name}{_format(formats.get(name))}") for name in done.files]
    for path in done.kept:
        remove = shlex.join(["rm", path])
        lines.append(
            f"  kept as it was: {printable(path)}. Without need of it: {printable(remove)}"
        )
    return Text("\n".join([f"{printable(head)}: {amount}, {_checked(done)}", *lines]))


def _format(found: events.FileFormat | None) -> str:
    if found is None:
        return ""
    what = f"  {size(found.size_bytes)}, {found.format}"
    if found.was in {None, found.format}:
        return what
    return f"{what} (was {found.was}: what the guest saw)"


def _defined(defined: events.DomainDefined) -> Text:
    state = "started" if defined.started else "shut off"
    head = f"{defined.domain} defined, {state}: {defined.uuid}"
    rebased = "".join(
        f"\n  {printable(name)} names the restored image below it now" for name in defined.rebased
    )
    return Text(f"{printable(head)}{rebased}")
