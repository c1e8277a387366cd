"""What ``verify`` and ``repair`` found, in text: a line a backup, the bad ones last.

::

    web: 20260701-030000_3_web: good
    db: 20260701-030000_4_db: FAILED: bytes 524288 to 786431 of 2026..._vda.raw are lost

    domain  backup                disk  lost       from    to
    db      20260701-030000_4_db  vda   256.0 KiB  524288  786431

    /mnt/backups: repository: pack is damaged: ...: chunk 71f0... is damaged (1 chunk)
    /mnt/backups: repository: 81920 chunks checked, 1 DAMAGED: 9.8 GiB in 21 s
    2 backups verified: 1 good, 1 FAILED
"""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct, field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from virtbackup_async.cli.render.palette import BAD, GOOD, LOOK
from virtbackup_async.events import (
    DiskDamaged,
    Event,
    RepositoryChecked,
    RepositoryDamaged,
    RepositoryRepaired,
    Summary,
    VerifyDone,
    VerifyFailed,
)
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.sentences import found_good, in_words
from virtbackup_async.reporting.text import count, printable

RANGES_A_DISK: Final = 16
_HEADS = ("domain", "backup", "disk", "lost", "from", "to")


class Verified(Struct):
    """Collects what a run found, and prints it when the summary is there."""

    done: list[VerifyDone] = field(default_factory=list)
    failed: list[VerifyFailed] = field(default_factory=list)
    disks: list[DiskDamaged] = field(default_factory=list)
    repositories: list[RepositoryDamaged | RepositoryChecked | RepositoryRepaired] = field(
        default_factory=list
    )

    def add(self, event: Event) -> None:
        """Remember the events that belong to the result; the others pass."""
        match event:
            case VerifyDone():
                self.done.append(event)
            case VerifyFailed():
                self.failed.append(event)
            case DiskDamaged():
                self.disks.append(event)
            case RepositoryDamaged() | RepositoryChecked() | RepositoryRepaired():
                self.repositories.append(event)
            case _:
                pass

    def print(self, console: Console, summary: Summary) -> None:
        """Write a line for each backup, what is lost of the bad ones, and the counts."""
        for good in sorted(self.done, key=lambda event: (event.domain, event.backup)):
            style = LOOK if good.lacks else GOOD
            _print(console, f"{good.domain}: {good.backup}: {found_good(good)}", style)
        for bad in self.failed:
            _print(console, f"{bad.domain}: {bad.backup}: FAILED: {bad.error}", BAD)
        if self.disks:
            console.print(lost_table(self.disks))
        for event in self.repositories:
            _print(
                console, in_words(event) or "", BAD if isinstance(event, RepositoryDamaged) else ""
            )
        if self.done or self.failed or summary.ok:
            _print(console, self._totals(), BAD if self.failed else "")

    def _totals(self) -> str:
        quick = sum(event.quick for event in self.done)
        unproved = sum(not event.digests for event in self.done) - quick
        words = [f"{len(self.done) - unproved - quick} good"] if quick < len(self.done) else []
        words += [f"{quick} complete, not read"] if quick else []
        words += [f"{unproved} readable, no digest"] if unproved else []
        words += [f"{len(self.failed)} FAILED"] if self.failed else []
        lacking = sum(bool(event.lacks) for event in self.done)
        words += [f"{lacking} LACKING disks or state"] if lacking else []
        total = count(len(self.done) + len(self.failed), "backup")
        return f"{total} verified: {', '.join(words) or 'none was chosen'}"


def lost_table(disks: list[DiskDamaged]) -> Table:
    """Show which bytes of which images are lost."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in _HEADS:
        table.add_column(head, overflow="fold")
    for disk in disks:
        for row in _rows(disk):
            table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _rows(disk: DiskDamaged) -> Iterator[tuple[str, ...]]:
    name = (disk.domain, disk.backup, disk.disk, size(disk.lost_bytes))
    for start, length in disk.ranges[:RANGES_A_DISK]:
        yield *name, str(start), str(start + length - 1)
        name = ("", "", "", "")
    more = len(disk.ranges[RANGES_A_DISK:]) + disk.more_ranges
    if more:
        yield "", "", "", "", f"and {more} more", ""


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Text(printable(text), style), soft_wrap=True)
