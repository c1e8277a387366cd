"""Prints the result of a backup, a restore or an export: a table on stdout at the end.

::

    domain  backup                 disks  used      stored   duration  quiesced
    web     20260701-030000_3_web  2      12.0 GiB  4.1 GiB  52 s      yes

    failed: db: the snapshot was refused
    skipped: web vdc: it is a host device
"""

import shlex
from collections.abc import Iterator

from rich.console import Console

from virtbackup_async import events
from virtbackup_async.cli.render.columns import Column, Row, print_columns
from virtbackup_async.cli.render.console import BAD, FACT, LOOK
from virtbackup_async.cli.render.lines import INDENT, print_command, print_line
from virtbackup_async.model.amounts import duration, size
from virtbackup_async.reporting.reports.run import RunReport
from virtbackup_async.reporting.sentences import reason
from virtbackup_async.reporting.text import count

_MAX_REASON = 30
_COLUMNS = (
    Column("group"),
    Column("domain"),
    Column("backup", may_go=True),
    *map(Column, ("disks", "used", "stored", "duration", "quiesced")),
)


def print_run(
    report: RunReport, console: Console, summary: events.Summary, *, only_rest: bool = False
) -> None:
    """Print the backups, the restored disks, what failed or was skipped, and the totals."""
    if report.done and not only_rest:
        print_columns(console, _COLUMNS, [_row(done, report) for done in report.done])
    for restored in report.restored:
        _print_restored(console, restored)
    for defined in report.defined:
        _print_defined(console, defined)
    for exported in report.exported:
        print_line(console, _exported(exported))
    for skipped in () if only_rest else report.skipped:
        name = report.name(skipped.group, skipped.domain)
        print_line(console, f"skipped: {name} {skipped.disk}: {skipped.reason}", FACT)
    _print_lacks(report, console, summary)
    if report.done or report.failed:
        print_line(console, _totals(report, summary.warnings))
        for line in _facts(report, summary):
            print_line(console, line, FACT)


def _print_lacks(report: RunReport, console: Console, summary: events.Summary) -> None:
    """Print what failed, and what a signal interrupted."""
    for failed in report.failed:
        if not _is_undone(failed):
            word = "interrupted" if failed.cancelled else "failed"
            name = report.name(failed.group, failed.domain)
            print_line(console, f"{word}: {name}: {reason(failed)}", BAD)
    for line in _interrupted(report, summary):
        print_line(console, line, LOOK)


def _is_undone(failed: events.BackupFailed) -> bool:
    return failed.cancelled and not failed.left_pending


def _interrupted(report: RunReport, summary: events.Summary) -> Iterator[str]:
    """Yield what a signal did to the run, in one line."""
    undone = dict.fromkeys(
        report.name(failed.group, failed.domain) for failed in report.failed if _is_undone(failed)
    )
    words = []
    if undone:
        words.append(f"interrupted: {', '.join(undone)} (undone, guests on their own disks)")
    if summary.not_started:
        words.append(f"not started: {', '.join(summary.not_started)}")
    if words:
        yield "; ".join(words)


def _row(done: events.BackupDone, report: RunReport) -> Row:
    disks = report.disks.get((done.group, done.backup))
    return {
        "group": done.group if len(report.groups) > 1 else "",
        "domain": done.domain,
        "backup": done.backup,
        "disks": "" if disks is None else str(disks),
        "used": size(done.data_bytes),
        "stored": size(done.stored_bytes),
        "duration": duration(done.duration_s),
        "quiesced": _quiesced(done),
    }


def _totals(report: RunReport, warnings: int) -> str:
    words = [f"{count(len(report.done), 'backup')} done"]
    words.append(f"{len(report.failed) - report.cancelled} failed")
    words += [f"{report.cancelled} interrupted"] if report.cancelled else []
    words += [count(warnings, "warning")] if warnings else []
    words += [f"{size(report.read_bytes)} read", f"{size(report.stored_bytes)} stored"]
    return ", ".join(words)


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
    reason, word = done.not_quiesced or "", quiesced(done.quiesced)
    return f"{word} ({reason})" if 0 < len(reason) <= _MAX_REASON else word


def _exported(done: events.DiskExported) -> str:
    head = f"{done.backup}: {done.disk} exported to {done.output}"
    return f"{head}: {done.format}, {_checked(done)}"


def _checked(done: events.RestoreDone | events.DiskExported) -> str:
    return "verified" if done.verified else "not verified: the backup carries no digest"


def _print_restored(console: Console, done: events.RestoreDone) -> None:
    head = f"{done.backup} restored to {done.target}"
    amount = f"{size(done.data_bytes)} in {duration(done.duration_s)}"
    print_line(console, f"{head}: {amount}, {_checked(done)}")
    formats = {found.file: found for found in done.formats}
    for name in done.files:
        print_line(console, f"{name}{_format(formats.get(name))}", head=INDENT)
    for path in done.kept:
        head = f"{INDENT}kept as it was: {path}. Without need of it: "
        print_command(console, shlex.join(["rm", path]), head=head)


def _format(found: events.FileFormat | None) -> str:
    if found is None:
        return ""
    what = f"  {size(found.size_bytes)}, {found.format}"
    if found.was in {None, found.format}:
        return what
    return f"{what} (was {found.was}: what the guest saw)"


def _print_defined(console: Console, defined: events.DomainDefined) -> None:
    state = "started" if defined.started else "shut off"
    print_line(console, f"{defined.domain} defined, {state}: {defined.uuid}")
    for name in defined.rebased:
        print_line(console, f"{name} names the restored image below it now", head=INDENT)
