"""The state behind the live view and the lines of progress: what works, waits, and has failed.

Pure: it turns events and times into works; ``drawing`` draws them. Invariant: no share, neither a
work's nor the whole's, ever becomes smaller, whatever the events say.
"""

from collections.abc import Iterator

from msgspec import Struct, field

from virtbackup_async import events
from virtbackup_async.cli.render.work import Key, Speed, Work
from virtbackup_async.reporting.sentences import hook_name, reason

_ALMOST = 0.99
_STARTED = (
    events.BackupStarted | events.RestoreStarted | events.VerifyStarted | events.CopyStarted
)  # fmt: skip
_ENDED = (
    events.BackupDone | events.BackupFailed | events.RestoreDone | events.DiskExported
    | events.VerifyDone | events.VerifyFailed | events.CopyDone | events.CopyFailed
)  # fmt: skip
_FAILED = events.BackupFailed | events.VerifyFailed | events.CopyFailed
_OF_WORK = (
    events.PhaseChanged | events.DiskProgress | events.DiskDone | events.DisksHeld
)  # fmt: skip


class Failure(Struct, frozen=True):
    """A backup that failed, or that ``verify`` found damaged."""

    group: str | None
    name: str
    error: str


class Whole(Struct, frozen=True):
    """How far a run is: the share from 0 to 1, and the bytes done, of how many."""

    share: float
    done_bytes: int
    total_bytes: int


class Board(Struct):
    """The state of a run.

    Attributes:
        rows: the works that have begun and not ended, in the order they began.
        waiting: the works that have not begun.
        targets: by group, where its backups go.
        hook: the hook that runs now.
        moved_bytes: all that was read, also for backups that failed.
        speed: of all works together, for people; ``mean_speed`` over a longer time, to foretell.
    """

    rows: dict[Key, Work] = field(default_factory=dict)
    waiting: dict[Key, Work] = field(default_factory=dict)
    done: int = 0
    cancelled: int = 0
    failures: list[Failure] = field(default_factory=list)
    targets: dict[str, str] = field(default_factory=dict)
    command: str | None = None
    hook: str | None = None
    moved_bytes: int = 0
    started_s: float | None = None
    speed: Speed = field(default_factory=Speed)
    mean_speed: Speed = field(default_factory=lambda: Speed(60.0))
    _at_work: dict[str, Work] = field(default_factory=dict)
    _over: set[Key] = field(default_factory=set)
    _ended_bytes: int = 0
    _repositories: set[Key] = field(default_factory=set)
    _waiting_bytes: tuple[int, int] | None = None
    _whole: Whole = Whole(0.0, 0, 0)

    @property
    def ended(self) -> int:
        """How many works have ended, in whatever way."""
        return self.done + self.cancelled + len(self.failures)

    @property
    def works(self) -> int:
        """How many works there are, as far as that is known."""
        rows = len(self.rows) - len(self.rows.keys() & self._repositories)
        return self.ended + rows + len(self.waiting)

    def apply(self, event: events.Event, at_s: float) -> None:
        """Apply an event."""
        if self.started_s is None:
            self.started_s = at_s
        if isinstance(event, _OF_WORK):
            self._change(event, at_s)
        elif isinstance(event, _STARTED):
            self._start(event)
        elif isinstance(event, _ENDED):
            self._end(event)
        else:
            self._of_run(event, at_s)

    def whole(self) -> Whole:
        """Return how far the run is."""
        waiting_bytes, known_waiting = self._waiting()
        done_bytes = self._ended_bytes
        total_bytes = self._ended_bytes + waiting_bytes
        known, unknown = self.ended + known_waiting, len(self.waiting) - known_waiting
        shares = 0.0
        for work in self.rows.values():
            work_bytes = work.total_bytes
            if work_bytes is None:
                unknown += 1
            else:
                known, total_bytes = known + 1, total_bytes + work_bytes
                shares += work.share * work_bytes
        if total_bytes and known:
            if not self._repositories:
                # Else their chunks are read with those of the other backups.
                total_bytes += unknown * total_bytes // known
            done_bytes += int(shares)
            share = done_bytes / total_bytes
        else:
            share = self.ended / self.works if self.works else 0.0
        if self.rows or self.waiting:
            share = min(share, _ALMOST)
        done_bytes = max(done_bytes, self._whole.done_bytes)
        total_bytes = max(done_bytes, total_bytes)
        self._whole = Whole(max(share, self._whole.share), done_bytes, total_bytes)
        return self._whole

    def _waiting(self) -> tuple[int, int]:
        """Return how much the waiting works have to do, and of how many that is known."""
        if self._waiting_bytes is None:
            sizes = [work.total_bytes for work in self.waiting.values()]
            known = [size for size in sizes if size is not None]
            self._waiting_bytes = sum(known), len(known)
        return self._waiting_bytes

    def left_s(self, now_s: float) -> float | None:
        """Return how many seconds the run will probably take; None if nobody can say."""
        speed, whole = self.mean_speed.bytes_per_s(now_s), self.whole()
        if not speed or not whole.total_bytes:
            return None
        return (1 - whole.share) * whole.total_bytes / speed

    def waits(self) -> Iterator[tuple[str, Iterator[Work]]]:
        """Yield what works wait for, and the works: ``preparing`` and ``next`` are such words."""
        for why in {work.reason: None for work in self.rows.values() if work.reason}:
            yield why, (work for work in self.rows.values() if work.reason == why)
        still = [w for w in self.rows.values() if not w.is_moving and not w.reason]
        preparing = [work for work in still if work.phase is events.Phase.PREPARING]
        if preparing:
            yield "preparing", iter(preparing)
        begun = [work for work in still if work.phase is not events.Phase.PREPARING]
        if begun or self.waiting:
            yield "next", (work for works in (begun, self.waiting.values()) for work in works)

    def _of_run(self, event: events.Event, at_s: float) -> None:
        match event:
            case events.RunStarted():
                self.command, self._waiting_bytes = event.command, None
                unnamed = (Work(None, name) for name in event.domains)
                self.waiting |= {one.key: one for one in unnamed if one.name not in self._at_work}
            case events.BackupsExpected():
                for expected in event.backups:
                    self._expect(expected)
            case events.HookStarted():
                self.hook = hook_name(event)
            case events.HookEnded():
                self.hook = None
            case _:
                self._of_repository(event, at_s)

    def _of_repository(self, event: events.Event, at_s: float) -> None:
        match event:
            case events.RepositoryProgress():
                key = (None, event.target, None)
                self._repositories.add(key)
                work = self._begin(key)
                if work is not None:
                    self._move(work, "packs", event, at_s)
            case events.RepositoryChecked():
                self._drop(self._at_work.get(event.target), is_done=True)
            case _:
                pass

    def _expect(self, expected: events.ExpectedBackup) -> None:
        self.targets[expected.group], self._waiting_bytes = expected.target, None
        key = (expected.group, expected.domain, expected.backup)
        if key in self._over:
            return
        work = self.rows.get(key) or self.waiting.get(key)
        if work is None:
            unnamed = self.waiting.pop((None, expected.domain, None), None)
            work = unnamed or Work(None, expected.domain)
            work.group, work.backup = expected.group, expected.backup
            self.waiting[key] = work
        work.expect(expected.disks)

    def _change(self, event: _OF_WORK, at_s: float) -> None:
        if isinstance(event, events.PhaseChanged) and _waits_for_its_turn(event):
            return
        work = self._work_of(event)
        if work is None:
            return
        match event:
            case events.PhaseChanged(disk=None):
                work.phase, work.reason = event.phase, event.reason
            case events.PhaseChanged():
                work.disk(event.disk or "").phase = event.phase
            case events.DiskProgress():
                self._move(work, event.disk, event, at_s)
            case events.DiskDone():
                work.end_disk(event.disk)
            case events.DisksHeld():
                work.held = event

    def _move(
        self,
        work: Work,
        disk: str,
        event: events.DiskProgress | events.RepositoryProgress,
        at_s: float,
    ) -> None:
        if work.phase in {events.Phase.PREPARING, events.Phase.WAITING}:
            work.phase = events.Phase.COPYING
        self.moved_bytes += work.move(work.disk(disk), event.done_bytes, event.total_bytes, at_s)
        self.speed.add(self.moved_bytes, at_s)
        self.mean_speed.add(self.moved_bytes, at_s)

    def _start(self, event: _STARTED) -> None:
        group = None if isinstance(event, events.RestoreStarted) else event.group
        work = self._begin((group, event.domain, self._named(event)))
        if work is None:
            return
        work.begin(event.disks)
        match event:
            case events.BackupStarted():
                work.phase, work.readings = events.Phase.PREPARING, event.readings
            case events.RestoreStarted() | events.CopyStarted():
                work.target = event.target
            case _:
                pass

    def _work_of(self, event: _OF_WORK) -> Work | None:
        """Return the work that an event belongs to; None if it has ended."""
        work = self._at_work.get(event.domain)
        if work is not None and event.group in {None, work.group}:
            return work
        return self._begin((event.group, event.domain, None))

    def _begin(self, key: Key) -> Work | None:
        """Return a work, which has begun now; None if it has ended."""
        if key in self._over:
            return None
        work = self.rows.get(key)
        if work is None:
            group, name, backup = key
            self._waiting_bytes = None
            work = self.waiting.pop(key, None) or self.waiting.pop((None, name, None), None)
            work = work or Work(group, name, backup)
            work.group, work.backup = group, backup
            self.rows[key] = work
        self._at_work[work.name] = work
        return work

    def _end(self, event: _ENDED) -> None:
        group = getattr(event, "group", None)
        work = self._begin((group, event.domain, self._named(event)))
        if work is None:
            return
        is_failure = isinstance(event, _FAILED)
        self._drop(work, is_done=not is_failure)
        if isinstance(event, events.BackupFailed | events.CopyFailed) and event.cancelled:
            self.cancelled += 1
        elif isinstance(event, _FAILED):
            self.failures.append(Failure(group, event.domain, _why(event)))
        else:
            self.done += 1

    def _named(self, event: _STARTED | _ENDED) -> str | None:
        """Return which of a domain's works it is, where one has many: the backup, and the target.

        After a backup it is copied, perhaps to several targets.
        """
        if isinstance(event, events.CopyStarted | events.CopyDone | events.CopyFailed):
            return event.backup if self.command == "copy" else f"{event.backup} {event.target}"
        is_check = isinstance(event, events.VerifyStarted | events.VerifyDone | events.VerifyFailed)
        return event.backup if is_check else None

    def _drop(self, work: Work | None, *, is_done: bool) -> None:
        if work is None:
            return
        self._over.add(work.key)
        self.rows.pop(work.key, None)
        if self._at_work.get(work.name) is work:
            del self._at_work[work.name]
        self._ended_bytes += (work.total_bytes or 0) if is_done else work.done_bytes


def _waits_for_its_turn(event: events.PhaseChanged) -> bool:
    return event.phase is events.Phase.WAITING and event.reason is None


def _why(event: _FAILED) -> str:
    return reason(event) if isinstance(event, events.BackupFailed) else event.error
