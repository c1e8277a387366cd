"""One work of a run: the backup, restore or check of a domain, or the check of a repository.

Pure: it takes byte counts and times, and reads no clock.
"""

from collections import deque
from collections.abc import Iterable

from msgspec import Struct, field

from virtbackup_async import events

_SAMPLE_S = 0.2

Key = tuple[str | None, str, str | None]
"""The group, the domain and, for ``verify`` and copies, the backup."""


class Speed:
    """The speed of a copy: the mean of the last seconds, so that the number is readable.

    It takes a growing count of bytes, and reads no clock.
    """

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, int]] = deque()
        self._last_bytes = 0

    def add(self, done_bytes: int, at_s: float) -> None:
        """Add the count at a time; times closer than a fifth of a second count as one."""
        self._last_bytes = done_bytes
        if not self._samples or at_s - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append((at_s, done_bytes))
        while len(self._samples) > 1 and at_s - self._samples[1][0] > self._window_s:
            self._samples.popleft()

    def bytes_per_s(self, now_s: float) -> float | None:
        """Return the mean up to now, which falls to 0 if a copy stalls; None until it is known."""
        if not self._samples or now_s - self._samples[0][0] < _SAMPLE_S:
            return None
        since_s, first_bytes = self._samples[0]
        return max(0.0, (self._last_bytes - first_bytes) / (now_s - since_s))


class DiskRow(Struct):
    """A disk of a work; ``total_bytes`` is None until its first progress."""

    name: str
    done_bytes: int = 0
    total_bytes: int | None = None
    expected_bytes: int | None = None
    phase: events.Phase | None = None
    is_done: bool = False

    @property
    def known_bytes(self) -> int | None:
        """How much there is to do, as far as that is known."""
        if self.is_done:
            return self.done_bytes
        return self.expected_bytes if self.total_bytes is None else self.total_bytes

    @property
    def is_moving(self) -> bool:
        """Whether its copy has begun and not ended."""
        return self.total_bytes is not None and not self.is_done


def _fifteen_seconds() -> Speed:
    return Speed(15.0)


class Work(Struct):
    """One work.

    Attributes:
        backup: of ``verify`` and copies the backup that is read, else None.
        reason: what it waits for, if not for its turn.
        share: how much of it is done, from 0 to 1; it never becomes smaller.
        moved_bytes: all that was read, also by attempts that began anew.
    """

    group: str | None
    name: str
    backup: str | None = None
    phase: events.Phase = events.Phase.WAITING
    reason: str | None = None
    disks: dict[str, DiskRow] = field(default_factory=dict)
    readings: tuple[events.DiskReading, ...] = ()
    held: events.DisksHeld | None = None
    target: str | None = None
    share: float = 0.0
    moved_bytes: int = 0
    speed: Speed = field(default_factory=_fifteen_seconds)

    @property
    def key(self) -> Key:
        return self.group, self.name, self.backup

    @property
    def done_bytes(self) -> int:
        return sum(disk.done_bytes for disk in self.disks.values())

    @property
    def total_bytes(self) -> int | None:
        """How much there is to do; None if it is known of no disk."""
        known = [disk.known_bytes for disk in self.disks.values()]
        numbers = [number for number in known if number is not None]
        if not numbers:
            return None
        # Of a disk that nothing is known of: as much as of the others.
        return sum(numbers) * len(known) // len(numbers)

    @property
    def is_moving(self) -> bool:
        """Whether a row of its own has something to show."""
        waits = self.phase in {events.Phase.WAITING, events.Phase.PREPARING}
        return not waits or any(disk.is_moving for disk in self.disks.values())

    def disk(self, name: str) -> DiskRow:
        """Return the row of a disk; make it at its first event."""
        return self.disks.setdefault(name, DiskRow(name))

    def begin(self, disks: Iterable[str]) -> None:
        """Begin with these disks; what was expected of them stays."""
        expected = {name: disk.expected_bytes for name, disk in self.disks.items()}
        self.disks = {name: DiskRow(name, expected_bytes=expected.get(name)) for name in disks}

    def expect(self, disks: Iterable[events.ExpectedDisk]) -> None:
        """Take an estimate; of a work that has begun, only for the disks that it has."""
        has_begun = bool(self.disks) and self.phase is not events.Phase.WAITING
        for expected in disks:
            if expected.disk in self.disks or not has_begun:
                self.disk(expected.disk).expected_bytes = expected.read_bytes

    def move(self, disk: DiskRow, done_bytes: int, total_bytes: int, at_s: float) -> int:
        """Take the progress of a disk; return how many bytes were moved since the last one."""
        moved = max(0, done_bytes - disk.done_bytes)
        disk.done_bytes, disk.total_bytes = done_bytes, max(done_bytes, total_bytes)
        self.moved_bytes += moved
        self.speed.add(self.moved_bytes, at_s)
        self.advance()
        return moved

    def end_disk(self, name: str) -> None:
        """Take note that a disk is done."""
        disk = self.disk(name)
        disk.is_done = True
        self.advance()

    def advance(self) -> None:
        """Compute the share anew."""
        total_bytes = self.total_bytes
        if total_bytes:
            self.share = max(self.share, min(1.0, self.done_bytes / total_bytes))
