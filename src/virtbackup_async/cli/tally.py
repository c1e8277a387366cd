"""Counts what a run's events say, and turns it into the last word: a ``Summary`` and an exit code.

Pure: it sees events and errors, never the loop. ``cli.run`` puts it between engine and renderer.
The gravest of what happened decides the exit code::

    14 something is left to clean  >  128+N a signal  >  an error's own code  >  3 some failed  >  0
"""

import signal
from collections.abc import Sequence

from virtbackup_async.errors import BackupsFailedError, RollbackError, VirtBackupError
from virtbackup_async.events import (
    BackupDone,
    BackupFailed,
    BackupStarted,
    Emit,
    Event,
    RestoreDone,
    RestoreStarted,
    Summary,
)

CLEAN_HINT = "Run 'virtbackup clean -b' to finish the undo."
UNEXPECTED_HINT = "Run again with -d to see where."


class Tally:
    """Watches the events of one run.

    Attributes:
        in_flight: by domain, the backups that were started and have no end yet.
    """

    def __init__(self, emit: Emit) -> None:
        self.in_flight: dict[str, BackupStarted] = {}
        self._emit = emit
        self._done: list[str] = []
        self._failed: list[BackupFailed] = []
        self._restoring: str | None = None

    def emit(self, event: Event) -> None:
        """Count an event and hand it on."""
        match event:
            case BackupStarted():
                self.in_flight[event.domain] = event
            case BackupDone():
                self._end(event.domain)
                self._done.append(event.domain)
            case BackupFailed():
                self._end(event.domain)
                self._failed.append(event)
            case RestoreStarted():
                self._restoring = event.domain
            case RestoreDone():
                self._restoring = None
                self._done.append(event.domain)
            case _:
                pass
        self._emit(event)

    def _end(self, domain: str) -> None:
        self.in_flight.pop(domain, None)

    def abandon(self) -> None:
        """Say of everything in flight that it stays pending: nobody will undo it in this run."""
        for started in tuple(self.in_flight.values()):
            self.emit(
                BackupFailed(
                    group=started.group,
                    domain=started.domain,
                    error=f"left behind unfinished: {started.backup}",
                    exit_code=RollbackError.exit_code,
                    cancelled=True,
                    left_pending=True,
                )
            )

    def summary(self, errors: Sequence[BaseException], signum: int | None) -> Summary:
        """The last word.

        Args:
            errors: what escaped from the run, groups already taken apart.
            signum: the signal that ended the run early, if one did.
        """
        code, message = self._verdict(errors, signum)
        failed = [event.domain for event in self._failed]
        if self._restoring is not None:
            failed.append(self._restoring)
        return Summary(
            ok=code == 0,
            done=tuple(self._done),
            failed=tuple(failed),
            exit_code=code,
            error=message,
        )

    def _verdict(
        self, errors: Sequence[BaseException], signum: int | None
    ) -> tuple[int, str | None]:
        pending = [event.domain for event in self._failed if event.left_pending]
        if pending or any(isinstance(error, RollbackError) for error in errors):
            return RollbackError.exit_code, self._left(pending, errors)
        if signum is not None:
            return 128 + signum, f"stopped by {signal.Signals(signum).name}"
        if errors:
            return _exit_code(errors[0]), _in_words(errors)
        if self._failed:
            total = len(self._failed) + len(self._done)
            return BackupsFailedError.exit_code, f"{len(self._failed)} of {total} backups failed"
        return 0, None

    def _left(self, pending: Sequence[str], errors: Sequence[BaseException]) -> str:
        words = (
            [f"something is left to clean: {', '.join(pending)}. {CLEAN_HINT}"] if pending else []
        )
        return "; ".join([*words, *([_in_words(errors)] if errors else [])])


def _exit_code(error: BaseException) -> int:
    return error.exit_code if isinstance(error, VirtBackupError) else 1


def _in_words(errors: Sequence[BaseException]) -> str:
    """Each different error once, in the order they came."""
    return "; ".join(dict.fromkeys(_sentence(error) for error in errors))


def _sentence(error: BaseException) -> str:
    if isinstance(error, VirtBackupError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}. {UNEXPECTED_HINT}"
