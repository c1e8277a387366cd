"""Opens the locks of a target, and extends those of all of its files."""

import os
from collections.abc import Iterator
from typing import Final

from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.layout import DIRECTORY, LEASES
from virtbackup_async.repository.storage.object_locks import BucketLock, ExtendedLocks
from virtbackup_async.repository.storage.objects.connecting import completed, shared_object_storage
from virtbackup_async.repository.storage.objects.credentials import s3_options
from virtbackup_async.repository.storage.objects.object_lock import ObjectLocks
from virtbackup_async.repository.storage.objects.requests import Patience
from virtbackup_async.repository.storage.objects.signing import Keys
from virtbackup_async.repository.storage.objects.storage import ObjectStorage

_REGION: Final = "us-east-1"
_AWS: Final = "https://s3.{}.amazonaws.com"
_PATIENCE_SHARE: Final = 0.25
_PASSING_FILES: Final = (f"{LEASES}/", f"{DIRECTORY}/condemned")


def open_locks(location: StorageLocation, patience: Patience | None = None) -> ObjectLocks:
    """Return the locks of a target in an S3 store. Blocks for no request.

    Raises:
        StorageError: there are no keys for it in the environment or in the AWS files.
    """
    location = completed(location)
    found = s3_options(str(location), location.profile, has_endpoint=location.endpoint is not None)
    access = found.get("access_key_id") or os.environ.get("AWS_ACCESS_KEY_ID")
    secret = found.get("secret_access_key") or os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not access or not secret:
        raise StorageError(
            f"cannot read the locks of {location}: no keys",
            hint="Locks need keys in the environment or in ~/.aws/credentials: those that a "
            "provider's cloud gives to its machines are not enough.",
        )
    in_environment = "access_key_id" not in found
    token = os.environ.get("AWS_SESSION_TOKEN") if in_environment else found.get("session_token")
    region = location.region or found.get("region") or _REGION
    endpoint = location.endpoint or found.get("endpoint") or _AWS.format(region)
    bucket, _, prefix = location.path.rstrip("/").partition("/")
    keys = Keys(access, secret, region, token or None)
    where = shared_object_storage(location).where
    return ObjectLocks(endpoint, (bucket, prefix), keys, where, patience or Patience())


def lock_of_bucket(location: StorageLocation) -> BucketLock | None:
    """Return the Object Lock of a target's bucket; None if it has none. Blocks.

    Raises:
        StorageError: it cannot be found out.
    """
    return open_locks(location).of_bucket()


def extend_locks(
    location: StorageLocation, lock: BucketLock, extended_s: float | None
) -> ExtendedLocks | None:
    """Do as ``object_locks.extend_locks`` says; leases and passing files need no lock. Blocks."""
    storage = shared_object_storage(location)
    now_s = storage.clock(LEASES)
    until_s = now_s + lock.period_s
    patience_s = _PATIENCE_SHARE * lock.period_s
    if extended_s is not None and until_s - patience_s < extended_s <= until_s:
        return None
    names = _old_names(storage, now_s - patience_s)
    return ExtendedLocks(open_locks(location).extend(names, lock.mode or "", until_s), until_s)


def _old_names(storage: ObjectStorage, before_s: float) -> Iterator[str]:
    for name, meta in storage.calls.list_below(""):
        if meta.modified_s <= before_s and not name.startswith(_PASSING_FILES):
            yield name
