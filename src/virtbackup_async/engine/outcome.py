"""One error out of the many that a task group may carry."""

from virtbackup_async.errors import RollbackError, VirtBackupError


def gravest(group: BaseExceptionGroup[BaseException]) -> VirtBackupError | None:
    """Return the error of a task group that must be told first: one that leaves something behind.

    None if the group holds nothing of ours: a mistake in the program, or only cancellations.
    """
    ours: list[VirtBackupError] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            inner = gravest(error)
            ours += [inner] if inner else []
        elif isinstance(error, VirtBackupError):
            ours.append(error)
    left = [error for error in ours if isinstance(error, RollbackError)]
    return next(iter(left or ours), None)
