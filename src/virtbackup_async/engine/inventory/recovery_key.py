"""Does an encrypted target have a key that survives the loss of its hosts?"""

from virtbackup_async.errors import ConfigError, CorruptError, NotFoundError, StorageError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import SlotList, check_public_key, list_key_slots


def recovery_lack(found: SlotList) -> str | None:
    """Return what would lose all backups of a repository; None if it has a recovery key."""
    kinds = {slot.kind for slot in found.slots}
    if "recovery" in kinds:
        return None
    if "passphrase" in kinds:
        return "no recovery key: with the last key file or passphrase all backups are lost"
    return "no recovery key: only key files open the backups, which are lost with the last of them"


def missing_recovery_key(target: StorageLocation) -> str | None:
    """Return what would lose all backups of an encrypted target; None if nothing would. Blocks."""
    if not target.is_encrypted:
        return None
    try:
        return recovery_lack(list_key_slots(target))
    except (NotFoundError, StorageError, CorruptError):
        return None  # the first backup makes it, or the check of the target has reported it


def public_key_problem(target: StorageLocation) -> ConfigError | None:
    """Return why nothing can be sealed for the recovery key of a sealed target, if so. Blocks."""
    if target.sealed_for is None:
        return None
    try:
        check_public_key(target.sealed_for)
    except ConfigError as error:
        return error
    return None
