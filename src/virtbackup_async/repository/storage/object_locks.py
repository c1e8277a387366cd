"""Object Lock of the bucket that a target is in: see ``objects/object_lock.py``.

Only an S3 store has it, and only its library's extra is needed for it, which is loaded then.
"""

from importlib import import_module
from typing import Final

from msgspec import Struct

from virtbackup_async.model.storage_location import StorageLocation

_S3: Final = "s3"
_OPENED: Final = "virtbackup_async.repository.storage.objects.opened_locks"


class BucketLock(Struct, frozen=True):
    """The Object Lock of a bucket.

    Attributes:
        mode: of the default retention, ``COMPLIANCE`` or ``GOVERNANCE``; None without one.
        period_s: for how long it locks each new object; 0 without one.
    """

    mode: str | None = None
    period_s: float = 0.0


class ExtendedLocks(Struct, frozen=True):
    """The result of extending locks.

    Attributes:
        objects: how many were locked anew.
        until_s: until when these are locked at least, by the store's clock.
    """

    objects: int
    until_s: float


def lock_of_bucket(location: StorageLocation) -> BucketLock | None:
    """Return the Object Lock of a target's bucket; None elsewhere, or if it has none. Blocks.

    Raises:
        StorageError: it cannot be found out.
    """
    if location.kind != _S3:
        return None
    found: BucketLock | None = import_module(_OPENED).lock_of_bucket(location)
    return found


def extend_locks(
    location: StorageLocation, lock: BucketLock, extended_s: float | None
) -> ExtendedLocks | None:
    """Lock the files of a target for the period of its bucket from now on, if it is time. Blocks.

    The store's own clock counts. A quarter of the period is between two extensions, and younger
    files are locked for long enough by the default retention; so at least half of the period is
    always left.

    Args:
        location: of the target.
        lock: of its bucket, with a default retention.
        extended_s: until when the last extension locked them; None if there was none.

    Returns:
        None if it is too early.

    Raises:
        StorageError: the target cannot be listed, or an object not be locked; others may be.
    """
    extend = import_module(_OPENED).extend_locks
    extended: ExtendedLocks | None = extend(location, lock, extended_s)
    return extended
