"""Derives the result of a run from its events: a ``Summary`` with the exit code.

Pure: it gets events and errors, and knows no event loop. ``cli.run`` puts it between engine and
renderer. The gravest result decides the exit code::

    14 something is left to clean  >  128+N a signal  >  an error's own code  >  13 some backups
    are damaged  >  3 some backups or copies failed  >  0
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from time import monotonic

from virtbackup_async import events
from virtbackup_async.errors import (
    REPAIR_HINT,
    BackupsFailedError,
    CorruptError,
    RollbackError,
    VirtBackupError,
    code_of,
)
from virtbackup_async.model.heads import CONTRADICTIONS, head_of

CLEAN_HINT = "Run 'virtbackup clean -b' to finish the undo."
SIGNALLED = 128
"""What a signal's number is added to in the exit code of the command that it ended."""
UNUSUAL = "guests whose data changed suddenly"
UNEXPECTED_HINT = "Run again with -d to see where."


class RunOutcome:
    """Counts the events of one run.

    Attributes:
        in_flight: by domain, the backups that have started and not ended.
    """

    def __init__(
        self, emit: events.Emit, run_id: str | None = None, clock_s: Callable[[], float] = monotonic
    ) -> None:
        """Begin to watch a run.

        Args:
            emit: takes all its events.
            run_id: names the run in its summary.
            clock_s: a clock that never jumps, in seconds.
        """
        self.in_flight: dict[str, events.BackupStarted] = {}
        self._emit = emit
        self._done: list[str] = []
        self._failed: list[events.BackupFailed] = []
        self._verified: list[events.VerifyDone] = []
        self._damaged: list[events.VerifyFailed] = []
        self._damaged_files = 0
        self._cleaned: dict[str, None] = {}
        self._stays: list[events.PendingLeft | events.RemovalFailed] = []
        self._stopped: list[events.CleanStopped] = []
        self._restoring: str | None = None
        self._problems = 0
        self._hooks: list[events.HookFailed] = []
        self._health: events.HealthChecked | None = None
        self._lacking: list[events.BackupDone] = []
        self._planned: tuple[str, ...] = ()
        self._begun: set[str] = set()
        self._warnings = 0
        self._contradictions: list[str] = []
        self._backups: list[events.BackupDone] = []
        self._copying: dict[tuple[str, str], events.CopyStarted] = {}
        self._copied: list[events.CopyDone] = []
        self._not_copied: list[events.CopyFailed] = []
        self._requests: list[events.StoreRequests] = []
        self._run_id = run_id
        self._clock_s = clock_s
        self._began_s = clock_s()

    def emit(self, event: events.Event) -> None:
        """Count an event and pass it on."""
        if not isinstance(event, events.OF_EACH_BACKUP):
            self._count(event)
        self._emit(event)

    def _count(self, event: events.Event) -> None:
        self._count_work(event)
        match event:
            case events.BackupStarted():
                self.in_flight[event.domain] = event
            case events.BackupDone():
                self._end(event.domain)
                self._done.append(event.domain)
                self._backups.append(event)
                if event.missing:
                    self._lacking.append(event)
            case events.BackupFailed():
                self._end(event.domain)
                self._failed.append(event)
            case events.RestoreStarted():
                self._restoring = event.domain
            case events.RestoreDone() | events.DiskExported():
                self._restoring = None
                self._done.append(event.domain)
            case events.HookFailed():
                self._hooks.append(event)
            case events.HealthChecked():
                self._health = event
            case events.Finding(level=events.Level.PROBLEM):
                self._problems += 1
            case _:
                self._count_damage(event)

    def _count_work(self, event: events.Event) -> None:
        match event:
            case events.RunStarted():
                self._planned = event.domains
            case (
                events.BackupStarted()
                | events.BackupFailed()
                | events.VerifyStarted()
                | events.VerifyFailed()
                | events.CopyStarted()
                | events.CopyFailed()
            ):
                self._begun.add(event.domain)
            case events.Warned():
                self._warnings += 1
                if event.code in CONTRADICTIONS:
                    self._contradictions.append(_about(event))
            case events.StoreRequests():
                self._requests.append(event)
            case _:
                pass

    def _count_damage(self, event: events.Event) -> None:
        match event:
            case events.VerifyDone():
                self._verified.append(event)
            case events.VerifyFailed():
                self._damaged.append(event)
            case events.RepositoryDamaged():
                self._damaged_files += 1
            case events.RepositoryRepaired(left_chunks=0):
                self._damaged_files = 0
            case _:
                self._count_cleaning(event)

    def _count_cleaning(self, event: events.Event) -> None:
        match event:
            case events.CopyStarted():
                self._copying[event.domain, event.target] = event
            case events.CopyDone():
                self._copying.pop((event.domain, event.target), None)
                self._copied.append(event)
            case events.CopyFailed():
                self._copying.pop((event.domain, event.target), None)
                self._not_copied.append(event)
            case events.BackupRemoved() | events.PendingUndone():
                self._cleaned[event.domain] = None
            case events.CleanStopped():
                self._stopped.append(event)
            case events.PendingLeft(in_use=False) | events.RemovalFailed(in_use=False):
                self._stays.append(event)
            case _:
                pass

    def _end(self, domain: str) -> None:
        self.in_flight.pop(domain, None)

    def abandon(self) -> None:
        """Report every backup and copy in flight as pending: this run will not undo it."""
        for started in tuple(self.in_flight.values()):
            self.emit(
                events.BackupFailed(
                    group=started.group,
                    domain=started.domain,
                    error=f"left behind unfinished: {started.backup}",
                    exit_code=RollbackError.exit_code,
                    cancelled=True,
                    left_pending=True,
                )
            )
        for copying in tuple(self._copying.values()):
            self.emit(
                events.CopyFailed(
                    group=copying.group,
                    domain=copying.domain,
                    backup=copying.backup,
                    target=copying.target,
                    error=f"left behind unfinished: {copying.backup}",
                    exit_code=RollbackError.exit_code,
                    cancelled=True,
                    left_pending=True,
                    uuid=copying.uuid,
                )
            )

    def summary(self, errors: Sequence[BaseException], signum: int | None) -> events.Summary:
        """Return the summary.

        Args:
            errors: those that ended the run, without exception groups.
            signum: the signal that ended the run early, if one did.
        """
        code, message = self._verdict(errors, signum)
        own = next((error for error in errors if isinstance(error, VirtBackupError)), None)
        failed = [event.domain for event in self._failed]
        failed += [event.backup for event in self._damaged]
        failed += [event.backup or event.domain for event in self._not_copied]
        failed += dict.fromkeys(event.domain for event in (*self._stays, *self._stopped))
        if self._restoring is not None:
            failed.append(self._restoring)
        # After a backup, copies are not what the run is for.
        moved = self._backups or self._copied
        return events.Summary(
            ok=code == 0,
            done=(
                *self._done,
                *(event.backup for event in self._verified),
                *(event.backup for event in self._copied),
                *self._cleaned,
            ),
            failed=tuple(failed),
            exit_code=code,
            error=message,
            run_id=self._run_id,
            error_code=self._error_code(code, errors) if message is not None else None,
            advice=own.hint if own is not None else self._advice(code),
            duration_s=round(self._clock_s() - self._began_s, 3),
            not_started=tuple(name for name in self._planned if name not in self._begun),
            warnings=self._warnings,
            data_bytes=sum(done.data_bytes for done in moved),
            read_bytes=sum(done.read_bytes for done in moved),
            stored_bytes=sum(done.stored_bytes for done in moved),
            heads=tuple(_heads([*self._backups, *self._copied])),
            contradictions=tuple(dict.fromkeys(self._contradictions)),
            requests=sum(one.requests for one in self._requests),
            sent_bytes=sum(one.sent_bytes for one in self._requests),
            received_bytes=sum(one.received_bytes for one in self._requests),
        )

    def _error_code(self, code: int, errors: Sequence[BaseException]) -> str:
        stopped = self._stopped_with(code)
        return stopped[0].error_code if stopped and not errors else _error_code(code, errors)

    def _advice(self, code: int) -> str | None:
        stopped = self._stopped_with(code)
        return stopped[0].advice if stopped else None

    def _stopped_with(self, code: int) -> list[events.CleanStopped]:
        """Return the guests that made the exit code of the run."""
        return [one for one in self._stopped if one.exit_code == code]

    def _verdict(
        self, errors: Sequence[BaseException], signum: int | None
    ) -> tuple[int, str | None]:
        pending = [event.domain for event in self._failed if event.left_pending]
        pending += [event.domain for event in self._not_copied if event.left_pending]
        if pending or any(isinstance(error, RollbackError) for error in errors):
            return RollbackError.exit_code, self._left(pending, errors)
        if self._stays:
            names = ", ".join(f"{event.domain} ({event.backup})" for event in self._stays)
            return RollbackError.exit_code, f"could not be cleaned: {names}"
        if signum is not None:
            return SIGNALLED + signum, f"stopped by {signal.Signals(signum).name}"
        if errors:
            return _exit_code(errors[0]), _in_words(errors)
        return self._failures()

    def _failures(self) -> tuple[int, str | None]:
        """Return the verdict on a run that reached its end."""
        if self._health is not None:
            return self._health.exit_code, None
        return next(self._of_damage(), None) or next(self._of_failures(), (0, None))

    def _of_damage(self) -> Iterator[tuple[int, str]]:
        if self._damaged:
            total = len(self._damaged) + len(self._verified)
            codes = [event.exit_code for event in self._damaged]
            code = CorruptError.exit_code if CorruptError.exit_code in codes else codes[0]
            yield code, f"{len(self._damaged)} of {total} backups could not be verified"
        if self._damaged_files:
            yield CorruptError.exit_code, f"a repository is damaged. {REPAIR_HINT}"

    def _of_failures(self) -> Iterator[tuple[int, str]]:
        """Yield the failures of a run that did not complete everything, the gravest first."""
        code = BackupsFailedError.exit_code
        if self._failed:
            total = len(self._failed) + len(self._done)
            yield code, f"{len(self._failed)} of {total} backups failed"
        if self._not_copied:
            yield _code_of_copies(self._not_copied), self._copies_in_words()
        if self._lacking:
            whose = (f"{done.domain} ({', '.join(done.missing)})" for done in self._lacking)
            yield code, f"disks missing that the backup before has: {', '.join(whose)}"
        if self._stopped:
            stopped = (f"{one.domain} ({one.backup})" for one in self._stopped)
            message = f"{UNUSUAL}, their backups from before stay: {', '.join(stopped)}"
            yield code, f"{message}. {self._stopped[0].advice}"
        if self._problems:
            found = "1 problem" if self._problems == 1 else f"{self._problems} problems"
            yield code, f"{found} found"
        if self._hooks:
            yield code, "; ".join(hook.error for hook in self._hooks)

    def _copies_in_words(self) -> str:
        total = len(self._not_copied) + len(self._copied)
        return f"{len(self._not_copied)} of {total} copies failed"

    def _left(self, pending: Sequence[str], errors: Sequence[BaseException]) -> str:
        words = (
            [f"something is left to clean: {', '.join(pending)}. {CLEAN_HINT}"] if pending else []
        )
        return "; ".join([*words, *([_in_words(errors)] if errors else [])])


def _about(warned: events.Warned) -> str:
    return f"{warned.domain}: {warned.message}" if warned.domain else warned.message


def _heads(done: Sequence[events.BackupDone | events.CopyDone]) -> Iterator[str]:
    for one in done:
        if one.sequence is not None and one.definition_hash is not None:
            where = f" in {one.target}" if isinstance(one, events.CopyDone) else ""
            yield f"{one.domain} {head_of(one.sequence, one.definition_hash)}{where}"


def _code_of_copies(failed: Sequence[events.CopyFailed]) -> int:
    """Return the exit code of copies that failed: 13 if a backup is damaged."""
    codes = [event.exit_code for event in failed]
    return (
        CorruptError.exit_code if CorruptError.exit_code in codes else BackupsFailedError.exit_code
    )


def _error_code(exit_code: int, errors: Sequence[BaseException]) -> str:
    """Return the kind of error that the exit code stands for."""
    if exit_code > SIGNALLED:
        return "interrupted"
    kinds = (type(error) for error in errors if _exit_code(error) == exit_code)
    roots = (kind for kind in VirtBackupError.__subclasses__() if kind.exit_code == exit_code)
    return code_of(next(chain(kinds, roots), Exception))


def _exit_code(error: BaseException) -> int:
    return error.exit_code if isinstance(error, VirtBackupError) else 1


def _in_words(errors: Sequence[BaseException]) -> str:
    """Return each different error once, in order."""
    return "; ".join(dict.fromkeys(_sentence(error) for error in errors))


def _sentence(error: BaseException) -> str:
    if isinstance(error, VirtBackupError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}. {UNEXPECTED_HINT}"
