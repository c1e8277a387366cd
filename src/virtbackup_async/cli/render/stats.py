"""What the backups hold and take in text (``stats``).

::

    group  domain     backups  size       data      stored   ratio
    main   db         14       140.0 GiB  20.1 GiB  3.9 GiB  5.2
    main   web        14       140.0 GiB  37.3 GiB  1.2 GiB  31.1
    main   2 domains  28       280.0 GiB  57.4 GiB  5.1 GiB  11.3

    main: added by day
    2026-07-01  ########################  4.1 GiB
    2026-07-02  ##                        310.0 MiB

    backup                 packager    data      stored     frees
    20260702-030000_3_web  repository  20.1 GiB  310.0 MiB  2.0 MiB

    /mnt/backups: repository of 28 backups: 57.4 GiB of data in 5.2 GiB
      chunks: 58.0 GiB, different ones 7.3 GiB (7.9 to 1), compressed to 5.1 GiB (1.4 to 1)
"""

from msgspec import Struct, field
from rich.console import Console
from rich.text import Text

from virtbackup_async.cli.render.chart import print_days
from virtbackup_async.cli.render.columns import Column, Row, print_columns
from virtbackup_async.cli.render.palette import BAD, LOOK
from virtbackup_async.events import (
    BackupStats,
    BrokenBackup,
    DayStats,
    DomainStats,
    Event,
    GroupStats,
    RepositoryStats,
    Summary,
    TargetUnreadable,
    UnclaimedBackups,
)
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.sentences import not_counted_in_words
from virtbackup_async.reporting.text import count, printable

_BACKUP_COLUMNS = (
    Column("group", may_go=True),
    Column("backup"),
    Column("packager", may_go=True),
    Column("size", may_go=True),
    Column("data"),
    Column("stored"),
    Column("frees"),
)
_COLUMNS = tuple(map(Column, ("group", "domain", "backups", "size", "data", "stored", "ratio")))


class Stats(Struct):
    """Collects the figures and prints them at the end."""

    amounts: list[DomainStats | GroupStats] = field(default_factory=list)
    days: dict[str, dict[str, int]] = field(default_factory=dict)
    backups: list[BackupStats] = field(default_factory=list)
    repositories: list[RepositoryStats] = field(default_factory=list)
    not_counted: list[BrokenBackup | TargetUnreadable | UnclaimedBackups] = field(
        default_factory=list
    )

    def add(self, event: Event) -> None:
        """Remember figures; the other events pass."""
        match event:
            case DomainStats():
                self.amounts.append(event)
            case GroupStats(domains=domains) if domains > 1:
                self.amounts.append(event)
            case DayStats():
                self.days.setdefault(event.group, {})[event.day] = event.stored_bytes
            case BackupStats():
                self.backups.append(event)
            case RepositoryStats():
                self.repositories.append(event)
            case BrokenBackup() | TargetUnreadable() | UnclaimedBackups():
                self.not_counted.append(event)
            case _:
                pass

    def print(self, console: Console, summary: Summary) -> None:
        """Write them."""
        if not self.amounts and summary.ok:
            console.print(Text("no backups"))
        print_columns(console, _COLUMNS, [_row(amounts) for amounts in self.amounts])
        for group, days in self.days.items():
            console.print()
            console.print(Text(printable(f"{group}: added by day"), style="bold"), soft_wrap=True)
            print_days(console, days)
        if self.backups:
            console.print()
            print_columns(console, _BACKUP_COLUMNS, [_backup_row(one) for one in self.backups])
        for store in self.repositories:
            console.print()
            console.print(Text(printable(_line(store))), soft_wrap=True)
            console.print(Text(_chunks_line(store)), soft_wrap=True)
        for event in self.not_counted:
            style = LOOK if isinstance(event, UnclaimedBackups) else BAD
            console.print(Text(printable(not_counted_in_words(event)), style), soft_wrap=True)


def _row(amounts: DomainStats | GroupStats) -> Row:
    return {
        "group": amounts.group,
        "domain": _whose(amounts),
        "backups": str(amounts.backups),
        "size": size(amounts.size_bytes),
        "data": size(amounts.data_bytes),
        "stored": size(amounts.stored_bytes),
        "ratio": _ratio(amounts.data_bytes, amounts.stored_bytes),
    }


def _whose(amounts: DomainStats | GroupStats) -> str:
    if isinstance(amounts, DomainStats):
        return amounts.domain
    return count(amounts.domains, "domain")


def _backup_row(backup: BackupStats) -> Row:
    return {
        "group": backup.group,
        "backup": backup.backup,
        "packager": backup.packager,
        "size": size(backup.size_bytes),
        "data": size(backup.data_bytes),
        "stored": size(backup.stored_bytes),
        "frees": size(backup.freed_bytes),
    }


def _line(store: RepositoryStats) -> str:
    whose = f"{store.target}: repository of {count(store.backups, 'backup')}"
    return f"{whose}: {size(store.data_bytes)} of data in {size(store.stored_bytes)}"


def _chunks_line(store: RepositoryStats) -> str:
    equal = _ratio(store.mapped_bytes, store.chunk_bytes)
    compressed = _ratio(store.chunk_bytes, store.chunk_stored_bytes)
    return (
        f"  chunks: {size(store.mapped_bytes)}, different ones {size(store.chunk_bytes)} "
        f"({equal} to 1), compressed to {size(store.chunk_stored_bytes)} ({compressed} to 1)"
    )


def _ratio(data_bytes: int, stored_bytes: int) -> str:
    return f"{data_bytes / stored_bytes:.1f}" if stored_bytes else "-"
