"""The reports of ``clean``, ``forget``, ``pin`` and ``unpin``."""

from msgspec import Struct, field

from virtbackup_async import events


class CleanReport(Struct):
    """What ``clean`` or ``forget`` removed, undid and kept, or would under ``--dry-run``.

    Attributes:
        dry_run: nothing was removed; the verdicts are a plan.
        verdicts: of all complete backups.
        found: the unfinished backups; ``others`` has what became of them.
        others: undone backups, whatever could not be undone or removed, the guests whose backups
            stay because their data changed suddenly, and locks that were extended.
        forgotten: the last word of a ``forget``; None of a ``clean``.
    """

    dry_run: bool
    verdicts: list[events.CleanVerdict] = field(default_factory=list)
    removed: list[events.BackupRemoved] = field(default_factory=list)
    found: list[events.PendingFound] = field(default_factory=list)
    others: list[
        events.PendingUndone
        | events.PendingLeft
        | events.RemovalFailed
        | events.CleanStopped
        | events.ChangeAccepted
        | events.LocksExtended
    ] = field(default_factory=list)
    swept: list[events.RepositorySwept] = field(default_factory=list)
    unclaimed: list[events.UnclaimedBackups] = field(default_factory=list)
    planned: list[events.RemovalPlanned] = field(default_factory=list)
    forgotten: events.BackupsForgotten | None = None

    def add(self, event: events.Event) -> None:
        """Collect an event of the result; ignore any other."""
        match event:
            case events.CleanVerdict():
                self.verdicts.append(event)
            case events.BackupRemoved():
                self.removed.append(event)
            case events.PendingFound():
                self.found.append(event)
            case (
                events.PendingUndone()
                | events.PendingLeft()
                | events.RemovalFailed()
                | events.CleanStopped()
                | events.ChangeAccepted()
                | events.LocksExtended()
            ):
                self.others.append(event)
            case events.RepositorySwept():
                self.swept.append(event)
            case events.RemovalPlanned():
                self.planned.append(event)
            case events.BackupsForgotten():
                self.forgotten = event
            case events.UnclaimedBackups():
                self.unclaimed.append(event)
            case _:
                pass

    @property
    def backups_removed(self) -> int:
        """How many backups were removed, or would be."""
        return len(self._expired) if self.dry_run else len(self.removed)

    @property
    def backups_undone(self) -> int:
        """How many unfinished backups were undone, or would be."""
        if self.dry_run:
            return len(self.found)
        return sum(isinstance(event, events.PendingUndone) for event in self.others)

    @property
    def freed_bytes(self) -> int | None:
        """The space that the run freed, or would free: a repack takes some of it back.

        None where a damaged repository cannot tell.
        """
        if self.forgotten is not None:
            return self.forgotten.freed_bytes
        if self.dry_run:
            known = [plan.freed_bytes for plan in self.planned if plan.freed_bytes is not None]
            return sum(known) if len(known) == len(self.planned) else None
        freed_bytes = sum(done.freed_bytes for done in self.removed)
        return freed_bytes + sum(done.freed_bytes - done.rewritten_bytes for done in self.swept)

    @property
    def damaged_kept(self) -> int:
        """How many damaged backups stay; no retention rule counts them."""
        return sum(verdict.damaged and verdict.keep for verdict in self.verdicts)

    @property
    def _expired(self) -> list[events.CleanVerdict]:
        return [verdict for verdict in self.verdicts if not verdict.keep]


class PinReport(Struct):
    """The backups that ``pin`` pinned, ``unpin`` unpinned, or ``accept`` accepted."""

    changed: list[events.PinChanged | events.TargetAccepted] = field(default_factory=list)

    def add(self, event: events.Event) -> None:
        """Collect a change; ignore any other event."""
        if isinstance(event, events.PinChanged | events.TargetAccepted):
            self.changed.append(event)
