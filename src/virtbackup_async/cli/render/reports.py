"""The commands' reports in text: each collects events, and is printed once, at the end.

Printing needs rich, which takes a tenth of a command's start. So a report is loaded when it is
made: a command with ``--json`` makes none.
"""
# ruff: noqa: PLC0415 -- see above

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from virtbackup_async.events import (
    BackupFailed,
    BackupServed,
    Event,
    PinChanged,
    Summary,
    TargetAccepted,
)

if TYPE_CHECKING:
    from rich.console import Console


class Report(Struct, frozen=True):
    """A command's report.

    Attributes:
        add: collects an event if the report needs it.
        print: prints the report; called once, with the end of the run.
        print_rest: prints only what a live view has not printed on the same terminal; None if that
            is all.
        says_alone: the kinds of events that only the report says, not also a line of their own.
        print_now: prints an event when it comes, for commands that have no end of their own.
    """

    add: Callable[[Event], None]
    print: Callable[["Console", Summary], None]
    print_rest: Callable[["Console", Summary], None] | None = None
    says_alone: tuple[type, ...] = ()
    print_now: Callable[["Console", Event], None] | None = None


MakeReport = Callable[[], Report]


def report_event(
    report: Report | None, out: "Console", event: Event, *, only_rest: bool = False
) -> None:
    """Add an event to the report, if there is one, and print the report after the summary."""
    if report is None:
        return
    report.add(event)
    if report.print_now is not None:
        report.print_now(out, event)
    if isinstance(event, Summary):
        show = report.print_rest if only_rest else None
        (show or report.print)(out, event)


def run() -> Report:
    """Make the report of a backup, a restore or an export."""
    from virtbackup_async.cli.render.run import print_run
    from virtbackup_async.reporting.reports.run import RunReport

    collected = RunReport()
    show = partial(print_run, collected)
    return Report(collected.add, show, partial(show, only_rest=True))


def backup() -> Report:
    """Make the report of a backup, and of the copies that followed it."""
    return _both(run(), copies(only_if_any=True))


def _both(first: Report, second: Report) -> Report:
    def add(event: Event) -> None:
        first.add(event)
        second.add(event)

    def show(out: "Console", summary: Summary, *, only_rest: bool = False) -> None:
        for one in (first, second):
            rest = one.print_rest if only_rest else None
            (rest or one.print)(out, summary)

    return Report(add, show, partial(show, only_rest=True))


def copies(*, only_if_any: bool = False) -> Report:
    """Make the report of copies; with ``only_if_any``, nothing is printed if there are none."""
    from virtbackup_async.cli.render.copies import print_copies
    from virtbackup_async.reporting.reports.copies import CopyReport

    collected = CopyReport()

    def show(out: "Console", summary: Summary, *, only_rest: bool = False) -> None:
        if not (only_if_any and collected.is_empty):
            print_copies(collected, out, summary, only_rest=only_rest)

    return Report(collected.add, show, partial(show, only_rest=True))


def preview() -> Report:
    """Make the report of what a backup would read."""
    from virtbackup_async.cli.render.preview import print_preview
    from virtbackup_async.reporting.reports.preview import PreviewReport

    collected = PreviewReport()
    # Nothing has failed: it would.
    show = partial(print_preview, collected)
    return Report(collected.add, show, says_alone=(BackupFailed,))


def clean(*, dry_run: bool) -> Report:
    """Make the report of removed backups, or of those that would be removed."""
    from virtbackup_async.cli.render.clean import print_clean
    from virtbackup_async.reporting.reports.clean import CleanReport

    collected = CleanReport(dry_run)
    show = partial(print_clean, collected)
    return Report(collected.add, show, partial(show, only_rest=True))


def pins() -> Report:
    """Make the report of pinned, unpinned or accepted backups."""
    from virtbackup_async.cli.render.clean import print_pins
    from virtbackup_async.reporting.reports.clean import PinReport

    collected = PinReport()
    alone = (PinChanged, TargetAccepted)
    return Report(collected.add, partial(print_pins, collected), says_alone=alone)


def verify() -> Report:
    """Make the report of verified backups and checked or repaired repositories."""
    from virtbackup_async.cli.render.verify import print_verify
    from virtbackup_async.reporting.reports.verify import VerifyReport

    collected = VerifyReport()
    show = partial(print_verify, collected)
    return Report(collected.add, show, partial(show, only_rest=True))


def listing(
    *,
    short: bool = False,
    detailed: bool = False,
    by_domain: Callable[[], bool] = lambda: False,
    sort: str = "name",
) -> Report:
    """Make the report of the backups that exist.

    Args:
        short: counts only.
        detailed: with each definition's path.
        by_domain: asked at the end: one row for each domain.
        sort: how the rows of domains are sorted.
    """
    from virtbackup_async.cli.render.domains import print_domains
    from virtbackup_async.cli.render.listing import print_listing
    from virtbackup_async.reporting.reports.listing import ListingReport

    collected = ListingReport()

    def show(console: "Console", summary: Summary) -> None:
        if by_domain() and not short:
            print_domains(collected, console, summary, sort=sort)
        else:
            print_listing(collected, console, summary, short=short, detailed=detailed)

    return Report(collected.add, show)


def show() -> Report:
    """Make the report of one backup."""
    from virtbackup_async.cli.render.show import print_show
    from virtbackup_async.reporting.reports.show import ShowReport

    collected = ShowReport()
    return Report(collected.add, partial(print_show, collected))


def diff() -> Report:
    """Make the report of two backups that were compared."""
    from virtbackup_async.cli.render.diff import print_diff
    from virtbackup_async.reporting.reports.diff import DiffReport

    collected = DiffReport()
    return Report(collected.add, partial(print_diff, collected))


def serve() -> Report:
    """Make the report of a backup that is served: where, and what to do with it."""
    from virtbackup_async.cli.render.serve import print_served

    def nothing(*_: object) -> None:
        """Neither collect events nor print at the end."""

    return Report(nothing, nothing, says_alone=(BackupServed,), print_now=print_served)


def health() -> Report:
    """Make the one line of ``check``."""
    from virtbackup_async.cli.render.status import print_health
    from virtbackup_async.reporting.reports.status import HealthReport

    collected = HealthReport()
    return Report(collected.add, partial(print_health, collected))


def log() -> Report:
    """Make the report of past runs."""
    from virtbackup_async.cli.render.status import print_log
    from virtbackup_async.reporting.reports.status import LogReport

    collected = LogReport()
    return Report(collected.add, partial(print_log, collected))


def status() -> Report:
    """Make the report of how things are."""
    from virtbackup_async.cli.render.overview import print_status
    from virtbackup_async.reporting.reports.status import StatusReport

    collected = StatusReport()
    return Report(collected.add, partial(print_status, collected))


def stats() -> Report:
    """Make the report of how much the backups hold and take."""
    from virtbackup_async.cli.render.stats import print_stats
    from virtbackup_async.reporting.reports.stats import StatsReport

    collected = StatsReport()
    return Report(collected.add, partial(print_stats, collected))


def findings(*, all_shown: bool = True, folded: bool = False, counted: str = "check") -> Report:
    """Make the report of findings.

    Args:
        all_shown: else only problems and warnings.
        folded: of all, what is ok is only counted, and what is equal has one row.
        counted: their noun.
    """
    from virtbackup_async.cli.render.findings import print_findings
    from virtbackup_async.reporting.reports.findings import FindingsReport, Shown

    collected = FindingsReport()
    shown = (Shown.FOLDED if folded else Shown.ALL) if all_shown else Shown.WRONG
    show = partial(print_findings, collected, shown=shown, counted=counted)
    return Report(collected.add, show)


def init(*, all_shown: bool = False) -> Report:
    """Make the report of a new configuration: what the doctor says of it, and what to do next."""
    from virtbackup_async.cli.render.site import print_written
    from virtbackup_async.reporting.reports.setup import SetupReport

    collected = SetupReport()
    return Report(collected.add, partial(print_written, collected, all_shown=all_shown))


def page() -> Report:
    """Make the report of a written page: its first sentence, and its file."""
    from virtbackup_async.cli.render.page import print_page
    from virtbackup_async.reporting.reports.page import PageReport

    collected = PageReport()
    return Report(collected.add, partial(print_page, collected))
