"""Prints the listing: a table of backups for each group, or counts (``list``).

::

    main: 2 domains, 3 backups
    domain  date              disks     packager  size      stored    quiesced  verified
    web     2026-07-01 03:00  vda, vdb  tar       12.0 GiB  4.1 GiB   yes       2026-07-02
"""

from collections.abc import Iterator
from datetime import datetime

from msgspec.structs import replace
from rich.console import Console
from rich.text import Text

from virtbackup_async.cli.render.columns import Column, Row, print_columns, size_or_blank
from virtbackup_async.cli.render.console import BAD, GOOD, LOOK
from virtbackup_async.cli.render.run import quiesced
from virtbackup_async.engine.inventory.dates import pasteable
from virtbackup_async.events import (
    ListedBackup,
    Summary,
    TargetUnreadable,
)
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.reports.listing import Domains, ListedGroup, ListingReport
from virtbackup_async.reporting.sentences import not_counted_in_words
from virtbackup_async.reporting.text import count, printable

_MINUTE = len("2026-07-01 03:00")
_SECOND = len("2026-07-01 03:00:00")
_NO_BACKUP = "no backup"
_FAILED, _NEVER = "FAILED", "never"
_VERDICTS = {_FAILED: BAD, _NEVER: LOOK, "": ""}
_COLUMNS = (
    Column("domain"),
    Column(
        "date",
        short=lambda date: date[:_MINUTE] if len(date) <= _SECOND else date,
        style=lambda date: LOOK if date == _NO_BACKUP else "",
    ),
    Column("disks", style=lambda disks: LOOK if "NOT " in disks else ""),
    Column("packager"),
    Column("size"),
    Column("stored", may_go=True),
    Column("quiesced"),
    Column("verified", style=lambda found: _VERDICTS.get(found.partition(" ")[0], GOOD)),
    Column(""),
)


def print_listing(
    report: ListingReport, console: Console, summary: Summary, *, short: bool, detailed: bool
) -> None:
    """Print the groups in the order they came, their domains by name.

    Args:
        report: what is listed.
        console: stdout.
        summary: the end of the run.
        short: print counts only (``-s``).
        detailed: print domain by domain, each backup with its definition's path (``-D``).
    """
    if not report.groups and summary.ok:
        console.print(Text("no backups"))
    for name, group in report.groups.items():
        console.print(_line(f"{name}: {_totals(group)}", "bold"), soft_wrap=True)
        domains = group.sorted()
        if detailed:
            _print_details(console, domains, short=short)
        elif not short:
            print_columns(console, _columns(domains), list(_rows(domains)))
        for one in [] if short else group.broken:
            console.print(_line(not_counted_in_words(one), BAD), soft_wrap=True)
        for space in [] if short or detailed else report.spaces:
            if name in space.groups:
                console.print(_line(f"{size(space.free_bytes)} free"), soft_wrap=True)
    for event in report.others:
        style = BAD if isinstance(event, TargetUnreadable) else LOOK
        console.print(_line(not_counted_in_words(event), style), soft_wrap=True)


def _print_details(console: Console, domains: Domains, *, short: bool) -> None:
    for domain, backups in domains.items():
        head = f"  {domain}: {count(len(backups), 'backup')}"
        console.print(_line(head), soft_wrap=True)
        for backup in [] if short else backups:
            pin = "  pinned" if backup.pinned else ""
            lacks = f"  lacks {', '.join(backup.lacks)}" if backup.lacks else ""
            note = f"  note: {backup.note}" if backup.note else ""
            path = f"    {local_date(backup)}  {backup.definition}{pin}{lacks}{note}"
            console.print(_line(path), soft_wrap=True)


def _totals(group: ListedGroup) -> str:
    broken = f", {len(group.broken)} BROKEN" if group.broken else ""
    return f"{count(len(group.domains), 'domain')}, {count(group.backups, 'backup')}{broken}"


def _columns(domains: Domains) -> tuple[Column, ...]:
    """Return the columns; a date loses its seconds only if it still means one backup."""
    minutes = [(b.domain, b.date[:_MINUTE]) for backups in domains.values() for b in backups]
    if len(set(minutes)) == len(minutes):
        return _COLUMNS
    return tuple(replace(column, short=None) for column in _COLUMNS)


def _row(backup: ListedBackup) -> Row:
    return {
        "domain": backup.domain,
        "date": local_date(backup),
        "disks": ", ".join((*backup.disks, *(f"NOT {what}" for what in backup.lacks))),
        "packager": backup.packager,
        "size": size_or_blank(backup.size_bytes),
        "stored": size_or_blank(backup.stored_bytes),
        "quiesced": "" if backup.quiesced is None else quiesced(backup.quiesced),
        "verified": verified_day(backup),
        "": "pinned" if backup.pinned else "",
    }


def _rows(domains: Domains) -> Iterator[Row]:
    for domain, backups in domains.items():
        yield from map(_row, backups)
        if not backups:
            yield {"domain": domain, "date": _NO_BACKUP}


def verified_day(backup: ListedBackup) -> str:
    """Return when the backup was found good, ``never``, or in capitals that it is damaged."""
    if backup.verified is None or backup.verified_date is None:
        return _NEVER
    day = f"{datetime.fromisoformat(backup.verified_date).astimezone():%Y-%m-%d}"
    return day if backup.verified else f"{_FAILED} {day}"


def local_date(backup: ListedBackup) -> str:
    """Return the date of a backup as it can be typed."""
    return pasteable(datetime.fromisoformat(backup.date))


def _line(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)
