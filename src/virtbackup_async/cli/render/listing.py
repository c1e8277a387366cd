"""Prints the listing: a table of backups for each group, or counts (``list``).

::

    main: 2 domains, 3 backups, 1 BROKEN
    domain  date              disks     packager  disk      stored    quiesced  verified
    web     2026-07-01 03:00  vda, vdb  tar       12.0 GiB  4.1 GiB   yes       2026-07-02
    web     2026-06-30 03:00  broken: data missing: 20260630-030000_3_web_vda.raw

Where the backups are of several hosts, or of two guests of one name, the host is in a column, too;
the UUID, if one host had two guests of one name.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from msgspec.structs import replace
from rich.console import Console

from virtbackup_async.cli.render.columns import Column, Row, print_columns, size_or_blank
from virtbackup_async.cli.render.console import BAD, GOOD, LOOK
from virtbackup_async.cli.render.lines import INDENT, print_line
from virtbackup_async.cli.render.run import quiesced
from virtbackup_async.engine.inventory.dates import pasteable
from virtbackup_async.events import (
    BrokenBackup,
    DomainStats,
    ListedBackup,
    Summary,
    TargetUnreadable,
)
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.reports.listing import Domains, ListedGroup, ListingReport
from virtbackup_async.reporting.sentences import not_counted_in_words
from virtbackup_async.reporting.text import count

_MINUTE = len("2026-07-01 03:00")
_SECOND = len("2026-07-01 03:00:00")
_NO_BACKUP = "no backup"
_FAILED, _NEVER = "FAILED", "never"
_BROKEN = "broken: "
_VERDICTS = {_FAILED: BAD, _NEVER: LOOK, "": ""}
_COLUMNS = (
    Column("domain"),
    Column("host"),
    Column("uuid"),
    Column(
        "date",
        short=lambda date: date[:_MINUTE] if len(date) <= _SECOND else date,
        style=lambda date: LOOK if date == _NO_BACKUP else "",
    ),
    Column("disks", style=lambda disks: LOOK if "NOT " in disks else ""),
    Column("packager"),
    Column("disk"),
    Column("stored", may_go=True),
    Column("quiesced"),
    Column("verified", style=lambda found: _VERDICTS.get(found.partition(" ")[0], GOOD)),
    Column("", style=lambda text: BAD if text.startswith(_BROKEN) else "", wraps=True),
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
        print_line(console, "no backups")
    for name, group in report.groups.items():
        print_line(console, f"{name}: {_totals(group)}", "bold")
        domains = group.sorted()
        if detailed:
            _print_details(console, domains, short=short)
        elif not short:
            print_columns(console, _columns(domains), list(_rows(domains, _said(domains))))
        for space in [] if short or detailed else report.spaces:
            if name in space.groups:
                print_line(console, f"{size(space.free_bytes)} free")
    for event in report.others:
        style = BAD if isinstance(event, TargetUnreadable) else LOOK
        print_line(console, not_counted_in_words(event), style)


def _print_details(console: Console, domains: Domains, *, short: bool) -> None:
    for domain, backups in domains.items():
        print_line(console, f"{domain}: {_counts(backups)}", head=INDENT)
        for backup in [] if short else backups:
            style = BAD if isinstance(backup, BrokenBackup) else ""
            print_line(console, _detail(backup), style, head=INDENT * 2)


def _detail(backup: ListedBackup | BrokenBackup) -> str:
    if isinstance(backup, BrokenBackup):
        return f"{_broken_date(backup)}  {backup.definition}  {_BROKEN}{backup.error}"
    pin = "  pinned" if backup.pinned else ""
    lacks = f"  lacks {', '.join(backup.lacks)}" if backup.lacks else ""
    note = f"  note: {backup.note}" if backup.note else ""
    return f"{local_date(backup)}  {backup.definition}{pin}{lacks}{note}"


def _counts(backups: Sequence[ListedBackup | BrokenBackup]) -> str:
    broken = sum(isinstance(backup, BrokenBackup) for backup in backups)
    return f"{count(len(backups) - broken, 'backup')}{f', {broken} BROKEN' if broken else ''}"


def _totals(group: ListedGroup) -> str:
    broken = f", {len(group.broken)} BROKEN" if group.broken else ""
    return f"{count(len(group.names), 'domain')}, {count(group.backups, 'backup')}{broken}"


def _columns(domains: Domains) -> tuple[Column, ...]:
    """Return the columns; a date loses its seconds only if it still means one backup."""
    minutes = [
        (guest, one.date[:_MINUTE])
        for guest, backups in domains.items()
        for one in backups
        if one.date
    ]
    if len(set(minutes)) == len(minutes):
        return _COLUMNS
    return tuple(replace(column, short=None) for column in _COLUMNS)


def said_of_guests(backups: Iterable[ListedBackup | DomainStats]) -> frozenset[str]:
    """Return the columns that tell guests apart: ``host`` and ``uuid``, or none of them."""
    guests = {(one.domain, one.guest, one.host) for one in backups}
    hosts = {host for _, _, host in guests if host is not None}
    shared = [guest for domain, guest, _ in guests if guest not in {"", domain}]
    said = {"host"} if len(hosts) > 1 or shared else set()
    return frozenset(said | ({"uuid"} if any("/" not in guest for guest in shared) else set()))


def _said(domains: Domains) -> frozenset[str]:
    listed = (one for backups in domains.values() for one in backups)
    return said_of_guests(one for one in listed if isinstance(one, ListedBackup))


def guest_cells(backup: ListedBackup | BrokenBackup | DomainStats, said: frozenset[str]) -> Row:
    """Return the cells of the columns that tell guests apart."""
    host = None if isinstance(backup, BrokenBackup) else backup.host
    cells = {"host": host or "", "uuid": backup.uuid or ""}
    return {head: cells[head] for head in said}


def _row(backup: ListedBackup | BrokenBackup, said: frozenset[str]) -> Row:
    if isinstance(backup, BrokenBackup):
        text = f"{_BROKEN}{backup.error}"
        guest = guest_cells(backup, said)
        return {"domain": backup.domain, **guest, "date": _broken_date(backup), "": text}
    return {
        "domain": backup.domain,
        **guest_cells(backup, said),
        "date": local_date(backup),
        "disks": ", ".join((*backup.disks, *(f"NOT {what}" for what in backup.lacks))),
        "packager": backup.packager,
        "disk": size_or_blank(backup.size_bytes),
        "stored": size_or_blank(backup.stored_bytes),
        "quiesced": "" if backup.quiesced is None else quiesced(backup.quiesced),
        "verified": verified_day(backup),
        "": "pinned" if backup.pinned else "",
    }


def _rows(domains: Domains, said: frozenset[str]) -> Iterator[Row]:
    for domain, backups in domains.items():
        yield from (_row(backup, said) for backup in backups)
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


def _broken_date(backup: BrokenBackup) -> str:
    """Return the date in its name, or all of a name that has none."""
    return pasteable(datetime.fromisoformat(backup.date)) if backup.date else backup.backup
