"""The request and the state of one ``clean`` command, which its steps share."""

from collections.abc import Sequence
from datetime import datetime

from anyio import CapacityLimiter
from msgspec import Struct

from virtbackup_async.catalog.host_notes import Notes
from virtbackup_async.engine.locks import LockWait
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.events import Emit, Warned


class CleanRequest(Struct, frozen=True):
    """What to clean.

    Attributes:
        group_names: none for all groups that have a target.
        broken: undo backups that were started and not finished.
        complete: remove complete ones that no rule keeps.
        dry_run: only report the decisions.
        wait_s: how long to wait for a locked domain, in seconds.
        drop_damaged: also remove complete ones that are damaged and older than a good one.
        accepted: names of backups whose sudden change of data is no reason to stop.
    """

    group_names: Sequence[str] = ()
    broken: bool = True
    complete: bool = True
    dry_run: bool = False
    wait_s: float = 0
    drop_damaged: bool = False
    accepted: Sequence[str] = ()


class Cleaning(Struct, frozen=True):
    """One run of the command, which all of its steps share.

    ``notes`` are the notes that this host had at its beginning; none if nothing is to be undone.
    """

    runtime: Runtime
    request: CleanRequest
    now: datetime
    slots: CapacityLimiter
    notes: Notes

    @property
    def emit(self) -> Emit:
        return self.runtime.emit

    def lock_wait(self, domain: str) -> LockWait:
        """Return how long to wait for the domain's lock."""
        return LockWait(
            self.request.wait_s,
            lambda message: self.emit(Warned(f"waiting: {message}", domain)),
        )
