"""The state behind the live view: the active domains, and the progress of their disks.

Pure: it turns events and times into rows; ``drawing`` draws them.
"""

from collections import deque

from msgspec import Struct, field

from virtbackup_async import events

_WINDOW_S = 5.0
_SAMPLE_S = 0.2


class Speed:
    """The speed of a copy: the mean of the last seconds, so that the number is readable.

    It takes a growing count of bytes, and reads no clock.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()
        self._last_bytes = 0

    def add(self, done_bytes: int, at_s: float) -> None:
        """Add the count at a time; times closer than a fifth of a second count as one."""
        self._last_bytes = done_bytes
        if not self._samples or at_s - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append((at_s, done_bytes))
        while len(self._samples) > 1 and at_s - self._samples[1][0] > _WINDOW_S:
            self._samples.popleft()

    def bytes_per_s(self, now_s: float) -> float | None:
        """Return the mean up to now, which falls to 0 if a copy stalls; None until it is known."""
        if not self._samples or now_s - self._samples[0][0] < _SAMPLE_S:
            return None
        since_s, first_bytes = self._samples[0]
        return max(0.0, (self._last_bytes - first_bytes) / (now_s - since_s))


class DiskRow(Struct):
    """A disk of an active domain; ``total_bytes`` is None until its first progress."""

    name: str
    done_bytes: int = 0
    total_bytes: int | None = None
    phase: events.Phase | None = None
    is_done: bool = False
    speed: Speed = field(default_factory=Speed)


class DomainRow(Struct):
    """An active domain."""

    name: str
    phase: events.Phase
    disks: dict[str, DiskRow] = field(default_factory=dict)

    @property
    def done_bytes(self) -> int:
        return sum(disk.done_bytes for disk in self.disks.values())

    @property
    def total_bytes(self) -> int:
        return sum(disk.total_bytes or 0 for disk in self.disks.values())

    def disk(self, name: str) -> DiskRow:
        """Return the row of a disk; make it at its first event."""
        return self.disks.setdefault(name, DiskRow(name))


class Board(Struct):
    """The state of a run.

    Attributes:
        rows: the active domains, in the order they started.
        waiting: the domains of the run that had no event yet.
        moved_bytes: of all disks, including finished ones.
        speed: of all disks together.
    """

    rows: dict[str, DomainRow] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    done: int = 0
    failed: int = 0
    moved_bytes: int = 0
    started_s: float | None = None
    speed: Speed = field(default_factory=Speed)

    def apply(self, event: events.Event, at_s: float) -> None:
        """Apply an event."""
        if self.started_s is None:
            self.started_s = at_s
        match event:
            case events.RunStarted():
                self.waiting.update(event.domains)
            case events.BackupStarted() | events.RestoreStarted() | events.VerifyStarted():
                self._start(event.domain, event.disks)
            case events.PhaseChanged():
                self._enter(event)
            case events.DiskProgress() | events.RepositoryProgress():
                self._move(event, at_s)
            case events.DiskDone():
                self._row(event.domain).disk(event.disk).is_done = True
            case _:
                self._count(event)

    def _count(self, event: events.Event) -> None:
        match event:
            case (
                events.BackupDone()
                | events.RestoreDone()
                | events.DiskExported()
                | events.VerifyDone()
            ):
                self._end(event.domain)
                self.done += 1
            case events.BackupFailed() | events.VerifyFailed():
                self._end(event.domain)
                self.failed += 1
            case events.RepositoryChecked():
                self._end(event.target)
            case _:
                pass

    def _start(self, domain: str, disks: tuple[str, ...]) -> None:
        row = self._row(domain)
        row.disks = {name: DiskRow(name) for name in disks}

    def _end(self, domain: str) -> None:
        self.waiting.discard(domain)
        self.rows.pop(domain, None)

    def _row(self, domain: str) -> DomainRow:
        self.waiting.discard(domain)
        return self.rows.setdefault(domain, DomainRow(domain, events.Phase.PREPARING))

    def _enter(self, event: events.PhaseChanged) -> None:
        if event.phase is events.Phase.WAITING and event.domain not in self.rows:
            return
        row = self._row(event.domain)
        if event.disk is None:
            row.phase = event.phase
        else:
            row.disk(event.disk).phase = event.phase

    def _move(self, event: events.DiskProgress | events.RepositoryProgress, at_s: float) -> None:
        if isinstance(event, events.DiskProgress):
            row = self._row(event.domain)
            disk = row.disk(event.disk)
        else:
            row = self._row(event.target)
            disk = row.disk("packs")
        if row.phase is events.Phase.PREPARING:
            row.phase = events.Phase.COPYING
        self.moved_bytes += max(0, event.done_bytes - disk.done_bytes)
        disk.done_bytes, disk.total_bytes = event.done_bytes, event.total_bytes
        disk.speed.add(event.done_bytes, at_s)
        self.speed.add(self.moved_bytes, at_s)
