"""Does the bucket of a target lock its objects, and are the locks extended?"""

from collections.abc import Iterator
from typing import Final

from anyio import to_thread

from virtbackup_async.engine.clean.object_lock import locked_until
from virtbackup_async.engine.host_state import Host
from virtbackup_async.errors import StorageError
from virtbackup_async.events import Finding, Level
from virtbackup_async.model.amounts import age
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import BucketLock, lock_of_bucket, open_inner

CHECK: Final = "target"
_SHARE: Final = 0.5
_EXTENDED: Final = "Run `virtbackup clean` on the keeper at least weekly: it extends the locks."


async def check_object_lock(host: Host, target: StorageLocation, *, keeps: bool) -> list[Finding]:
    """Check the Object Lock of a target's bucket; nothing if it has none.

    Args:
        host: this host.
        target: the target.
        keeps: whether this host cleans the target, and so extends the locks.
    """
    if target.is_local:
        return []
    try:
        lock = await to_thread.run_sync(lock_of_bucket, target)
        if lock is None:
            return []
        return await to_thread.run_sync(lambda: [*_judged(host, target, lock, keeps=keeps)])
    except (OSError, StorageError) as error:
        return [
            Finding(
                Level.INFO,
                CHECK,
                str(target),
                f"whether its bucket has Object Lock is not known: {error}",
                "Allow s3:GetBucketObjectLockConfiguration.",
                code="object_lock_unknown",
            )
        ]


def _judged(
    host: Host, target: StorageLocation, lock: BucketLock, *, keeps: bool
) -> Iterator[Finding]:
    subject = str(target)
    if lock.mode is None:
        message = "its bucket has Object Lock, and no default retention: nothing is locked"
        advice = "Set a default retention, or the lock protects nothing."
        yield Finding(Level.WARNING, CHECK, subject, message, advice, code="object_lock_unused")
        return
    period = age(lock.period_s)
    message = f"its bucket locks each new object for {period} ({lock.mode.lower()})"
    yield Finding(Level.OK, CHECK, subject, message, code="object_lock")
    if not keeps:
        return
    until_s = locked_until(host, target)
    if until_s is None:
        message = "this host has not extended the locks of its files yet"
        yield Finding(
            Level.WARNING, CHECK, subject, message, _EXTENDED, code="object_lock_not_extended"
        )
        return
    left_s = until_s - open_inner(target).clock(".virtbackup-repository/leases")
    if left_s < _SHARE * lock.period_s:
        message = f"the locks of its files end in {age(max(left_s, 0))}"
        yield Finding(
            Level.WARNING, CHECK, subject, message, _EXTENDED, code="object_lock_not_extended"
        )
