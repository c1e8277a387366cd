"""A bucket with Object Lock, in the tests' object store."""

import secrets

from object_server import ObjectServer
from object_stores import IMPATIENT
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.objects.opened_locks import open_locks

LOCKED_DAYS = 8


def locked_place(server: ObjectServer, *, retention: bool = True) -> StorageLocation:
    """A place in a new bucket that locks each new object for some days; keys must be set."""
    bucket = f"locked-{secrets.token_hex(4)}"
    place = StorageLocation("s3", f"{bucket}/hosts/a b", endpoint=server.endpoint)
    locks = open_locks(place, IMPATIENT)
    locks.send("PUT", None, "", headers={"x-amz-bucket-object-lock-enabled": "true"})
    if retention:
        days = f"<Mode>COMPLIANCE</Mode><Days>{LOCKED_DAYS}</Days>"
        rule = f"<Rule><DefaultRetention>{days}</DefaultRetention></Rule>"
        enabled = "<ObjectLockEnabled>Enabled</ObjectLockEnabled>"
        xml = f"<ObjectLockConfiguration>{enabled}{rule}</ObjectLockConfiguration>"
        locks.send("PUT", None, "object-lock", xml.encode())
    return place
