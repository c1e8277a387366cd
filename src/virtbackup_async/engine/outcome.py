"""One error for a piece of work that failed: out of the many of a task group, or of any kind."""

import logging
from typing import Final

from virtbackup_async.errors import RollbackError, VirtBackupError

_log = logging.getLogger(__name__)


def most_severe(group: BaseExceptionGroup[BaseException]) -> VirtBackupError | None:
    """Return the first error of a task group, but one that leaves something to undo before others.

    None if all of them are bugs or cancellations.
    """
    known: list[VirtBackupError] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            inner = most_severe(error)
            known += [inner] if inner else []
        elif isinstance(error, VirtBackupError):
            known.append(error)
    left = [error for error in known if isinstance(error, RollbackError)]
    return next(iter(left or known), None)


BUG_HINT: Final = "This is a bug: run again with -d, and report what that logs."


def known_error(what: str, error: Exception) -> VirtBackupError:
    """Return an error as one that can be reported; a bug must not stop the work on other domains.

    Args:
        what: the domain or backup, for the log.
        error: a bug is logged with its traceback.
    """
    if isinstance(error, VirtBackupError):
        return error
    _log.error("%s: unexpected error", what, exc_info=error)
    return VirtBackupError(f"unexpected: {type(error).__name__}: {error}", hint=BUG_HINT)
