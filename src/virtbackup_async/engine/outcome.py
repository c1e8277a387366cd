"""What a backup came to: its last event, or one error out of the many of a task group."""

from virtbackup_async.errors import RollbackError, VirtBackupError


def most_severe(group: BaseExceptionGroup[BaseException]) -> VirtBackupError | None:
    """Return the error of a task group that must be told first: one that leaves something behind.

    None if the group holds nothing of ours: a mistake in the program, or only cancellations.
    """
    ours: list[VirtBackupError] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            inner = most_severe(error)
            ours += [inner] if inner else []
        elif isinstance(error, VirtBackupError):
            ours.append(error)
    left = [error for error in ours if isinstance(error, RollbackError)]
    return next(iter(left or ours), None)
