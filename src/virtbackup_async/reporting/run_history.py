"""From the events of one run to its records in the histories of the targets.

Pure: ``after_run`` gives it each event with its moment, and writes what it returns. Of each domain
only the first moment of each phase is kept, so a record stays small.
"""

from collections import Counter
from collections.abc import Container, Mapping

from msgspec import Struct, field

from virtbackup_async import events
from virtbackup_async.model.run_record import DomainRun, Outcome, RunRecord


class RunIdentity(Struct, frozen=True):
    """Which run it is; its ``run_id`` comes with its summary."""

    command: str
    host: str
    version: str
    start: float


class _AtWork(Struct):
    start: float
    phases: dict[str, float] = field(default_factory=dict)
    method: str | None = None


class RunHistory:
    """Watches one run."""

    def __init__(self, identity: RunIdentity) -> None:
        self._identity = identity
        self._at_work: dict[str, _AtWork] = {}
        self._domains: list[DomainRun] = []
        self._copies: dict[str, list[DomainRun]] = {}
        self._removed: dict[str, int] = {}
        self._requests: dict[str, events.StoreRequests] = {}

    def note(self, event: events.Event, at: float) -> None:
        """Take one event, and its moment in seconds since the epoch."""
        match event:
            case events.PhaseChanged():
                work = self._work(event.domain, at)
                work.phases.setdefault(str(event.phase), _since(work, at))
            case events.BackupStarted():
                self._work(event.domain, at).method = event.method
            case events.VerifyStarted():
                self._at_work[event.domain] = _AtWork(at)
            case events.BackupDone():
                self._domains.append(self._backed_up(event, at))
            case events.BackupFailed():
                work = self._end(event.domain, at)
                error = event.reason or event.error
                self._add(event, Outcome.FAILED, work, at, error)
            case events.VerifyFailed():
                work = self._end(event.domain, at)
                self._add(event, Outcome.DAMAGED, work, at, event.error, event.backup)
            case events.VerifyDone():
                self._domains.append(_verified(event, at))
                self._at_work.pop(event.domain, None)
            case _:
                self._note_of_target(event, at)

    def _note_of_target(self, event: events.Event, at: float) -> None:
        match event:
            case events.CopyDone() | events.CopyFailed():
                self._copies.setdefault(event.target, []).append(_copied(event, at))
            case events.StoreRequests():
                self._requests[event.target] = event
            case events.BackupRemoved():
                self._removed[event.group] = self._removed.get(event.group, 0) + 1
            case _:
                pass

    def has_backups_of(self, groups: Container[str]) -> bool:
        """Tell whether the run made a backup of one of these groups."""
        return any(one.outcome == Outcome.DONE and one.group in groups for one in self._domains)

    def has_copies_in(self, target: str) -> bool:
        """Tell whether the run made a copy in a target, named as its events have it."""
        return any(one.outcome == Outcome.COPIED for one in self._copies.get(target, ()))

    def concerns(self, groups: Container[str], target: str = "") -> bool:
        """Tell whether the run did something in one of these groups, or in none at all.

        A run that only copies concerns the targets that it copied into.
        """
        if target in self._copies:
            return True
        if self._identity.command == "copy":
            return False
        seen = {one.group for one in self._domains} | self._removed.keys()
        return not seen or any(group in groups for group in seen)

    def record(
        self,
        summary: events.Summary,
        end: float,
        groups: Container[str],
        room: tuple[int, int] | None,
        target: str = "",
    ) -> RunRecord:
        """Return the record for the target of some groups.

        Args:
            summary: of the run.
            end: when it ended, in seconds since the epoch.
            groups: those that have the target.
            room: used and free bytes of its file system.
            target: its name, as the events of requests have it.
        """
        one = self._identity
        made = self._requests.get(target)
        used, free = room if room is not None else (None, None)
        return RunRecord(
            summary.run_id or "",
            one.command,
            one.host,
            one.version,
            one.start,
            max(one.start, end),
            summary.exit_code,
            summary.error,
            (
                *(domain for domain in self._domains if domain.group in groups),
                *self._copies.get(target, ()),
            ),
            _sum_of(self._removed, groups),
            used,
            free,
            {} if made is None else _by_verb(made),
            0 if made is None else made.sent_bytes,
            0 if made is None else made.received_bytes,
        )

    def _work(self, domain: str, at: float) -> _AtWork:
        return self._at_work.setdefault(domain, _AtWork(at))

    def _end(self, domain: str, at: float) -> _AtWork:
        return self._at_work.pop(domain, None) or _AtWork(at)

    def _add(  # noqa: PLR0913, PLR0917 -- the fields of a record
        self,
        event: events.BackupFailed | events.VerifyFailed,
        outcome: Outcome,
        work: _AtWork,
        at: float,
        error: str,
        backup: str | None = None,
    ) -> None:
        self._domains.append(
            DomainRun(
                event.group,
                event.domain,
                outcome,
                work.start,
                max(work.start, at),
                backup,
                tuple(work.phases.items()),
                work.method,
                error=error,
            )
        )

    def _backed_up(self, event: events.BackupDone, at: float) -> DomainRun:
        work = self._end(event.domain, at)
        return DomainRun(
            event.group,
            event.domain,
            Outcome.DONE,
            work.start,
            max(work.start, at),
            event.backup,
            tuple(work.phases.items()),
            work.method,
            event.quiesced,
            event.frozen_ms,
            event.read_bytes,
            event.data_bytes,
            event.stored_bytes,
        )


def _verified(event: events.VerifyDone, at: float) -> DomainRun:
    outcome = Outcome.VERIFIED
    start = at - max(0.0, event.duration_s)
    data_bytes = 0 if event.quick else event.data_bytes
    return DomainRun(
        event.group, event.domain, outcome, start, at, event.backup, data_bytes=data_bytes
    )


def _copied(event: events.CopyDone | events.CopyFailed, at: float) -> DomainRun:
    if isinstance(event, events.CopyFailed):
        return DomainRun(
            event.group, event.domain, Outcome.NOT_COPIED, at, at, event.backup, error=event.error
        )
    return DomainRun(
        event.group,
        event.domain,
        Outcome.COPIED,
        at - max(0.0, event.duration_s),
        at,
        event.backup,
        read_bytes=event.read_bytes,
        data_bytes=event.data_bytes,
        stored_bytes=event.stored_bytes,
    )


def _by_verb(made: events.StoreRequests) -> dict[str, int]:
    by_verb: Counter[str] = Counter()
    for one in made.kinds:
        by_verb[one.verb] += one.requests
    return dict(by_verb)


def _since(work: _AtWork, at: float) -> float:
    return round(max(0.0, at - work.start), 3)


def _sum_of(counts: Mapping[str, int], groups: Container[str]) -> int:
    return sum(count for group, count in counts.items() if group in groups)
