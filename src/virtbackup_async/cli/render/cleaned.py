"""What ``clean`` did in text, or under ``--dry-run`` would do: a table, then what stays and why.

::

    domain  backup                 verdict  occupies  why
    web     20260601-030000_3_web  goes     4.1 GiB   no rule keeps it
    web     20260701-030000_3_web  stays    4.0 GiB   newest, first of day 2026-07-01

    1 backup would be removed, 4.1 GiB freed
"""

from collections.abc import Sequence

from msgspec import Struct, field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from virtbackup_async.cli.render.palette import BAD, GOOD, LOOK
from virtbackup_async.events import (
    BackupRemoved,
    CleanVerdict,
    Event,
    PendingFound,
    PendingLeft,
    PendingUndone,
    PinChanged,
    RemovalFailed,
    RepositorySwept,
    Summary,
    UnclaimedBackups,
)
from virtbackup_async.model.amounts import size
from virtbackup_async.reporting.sentences import clean_in_words, unclaimed_in_words
from virtbackup_async.reporting.text import count, printable

_GOES, _STAYS, _UNDONE = "goes", "stays", "undone"
_STYLES = {_GOES: LOOK, _STAYS: GOOD, _UNDONE: LOOK}
_PLANNED = ("domain", "backup", "verdict", "occupies", "why")
_REMOVED = ("domain", "backup", "freed")


class Cleaned(Struct):
    """Collects what a clean came to, and prints it when the summary is there."""

    dry_run: bool
    verdicts: list[CleanVerdict] = field(default_factory=list)
    removed: list[BackupRemoved] = field(default_factory=list)
    found: list[PendingFound] = field(default_factory=list)
    others: list[PendingUndone | PendingLeft | RemovalFailed] = field(default_factory=list)
    swept: list[RepositorySwept] = field(default_factory=list)
    unclaimed: list[UnclaimedBackups] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Remember the events that belong to the result; the others pass."""
        match event:
            case CleanVerdict():
                self.verdicts.append(event)
            case BackupRemoved():
                self.removed.append(event)
            case PendingFound():
                self.found.append(event)
            case PendingUndone() | PendingLeft() | RemovalFailed():
                self.others.append(event)
            case RepositorySwept():
                self.swept.append(event)
            case UnclaimedBackups():
                self.unclaimed.append(event)
            case _:
                pass

    def print(self, console: Console, summary: Summary) -> None:
        """Write the plan, or what was done of it."""
        if self.dry_run:
            self._print_plan(console)
        elif self.removed:
            rows = [(done.domain, done.backup, size(done.freed_bytes)) for done in self.removed]
            console.print(_table(_REMOVED, rows))
        for event in (*self.others, *self.swept):
            style = BAD if isinstance(event, PendingLeft | RemovalFailed) else ""
            console.print(Text(printable(clean_in_words(event) or ""), style), soft_wrap=True)
        for left in self.unclaimed:
            console.print(Text(printable(unclaimed_in_words(left)), LOOK), soft_wrap=True)
        if summary.ok or self.removed or self.others:
            console.print(Text(self._totals()), soft_wrap=True)

    def _print_plan(self, console: Console) -> None:
        rows = [
            (found.domain, found.backup, _UNDONE, "", "was started and not finished")
            for found in self.found
        ]
        rows += [
            (
                verdict.domain,
                verdict.backup,
                _verdict(verdict),
                size(verdict.occupied_bytes),
                ", ".join(verdict.reasons),
            )
            for verdict in self.verdicts
        ]
        if rows:
            console.print(_table(_PLANNED, rows))

    def _totals(self) -> str:
        going = [verdict for verdict in self.verdicts if not verdict.keep]
        if self.dry_run:
            words = [f"{count(len(going), 'backup')} would be removed"]
            words += [f"{len(self.found)} broken undone"] if self.found else []
            freed_bytes = sum(verdict.occupied_bytes for verdict in going)
        else:
            undone = sum(isinstance(event, PendingUndone) for event in self.others)
            words = [f"{count(len(self.removed), 'backup')} removed"]
            words += [f"{undone} broken undone"] if undone else []
            freed_bytes = sum(done.freed_bytes for done in self.removed)
            freed_bytes += sum(done.freed_bytes - done.rewritten_bytes for done in self.swept)
        damaged = sum(verdict.damaged and verdict.keep for verdict in self.verdicts)
        last = [f"{damaged} DAMAGED and not counted"] if damaged else []
        return ", ".join([*words, f"{size(freed_bytes)} freed", *last])


class Pins(Struct):
    """What ``pin`` or ``unpin`` came to: one line."""

    changed: list[PinChanged] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Remember the change; the other events pass."""
        if isinstance(event, PinChanged):
            self.changed.append(event)

    def print(self, console: Console, summary: Summary) -> None:  # noqa: ARG002 -- the protocol's
        """Write the line."""
        for event in self.changed:
            console.print(Text(printable(clean_in_words(event) or "")), soft_wrap=True)


def _verdict(verdict: CleanVerdict) -> str:
    return _STAYS if verdict.keep else _GOES


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell), _STYLES.get(cell, "")) for cell in row))
    return table
