"""What the other target has of a backup: nothing, the same backup, or something in its way."""

from collections.abc import Mapping

from virtbackup_async.catalog.scanning import FoundBackup, FoundPending, Scan
from virtbackup_async.engine.undo.find_domain import copies_lock_name
from virtbackup_async.errors import CorruptError, LockHeldError, StorageError, VirtBackupError
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.target_file import TargetFile


def find_copy(definition: Definition, scan: Scan, lock: str | None = None) -> TargetFile | None:
    """Return the definition of the copy that is there; None for none.

    Args:
        definition: the backup's.
        scan: the domain's directory in the other target.
        lock: of the domain's copies; what others left behind is undone under it.

    Raises:
        StorageError: another backup has its name there.
        CorruptError: the copy is there, and it is damaged.
        LockHeldError: a backup of that name is being made there.
    """
    name = definition.name
    for found in scan.complete:
        if found.definition.name == name:
            return _checked(definition, found)
    for problem in scan.problems:
        if problem.path.stem == name:
            raise _damaged(problem.path, problem.reason)
    for removed in scan.removed:
        if removed.definition.name == name:
            raise StorageError(
                f"{removed.path} is being removed", hint="Run `virtbackup clean` there first."
            )
    for found_pending in scan.pending:
        if found_pending.pending.name == name:
            _refuse_unless_copy(found_pending, lock)
    return None


def _checked(definition: Definition, found: FoundBackup) -> TargetFile:
    if not is_same_backup(definition, found.definition):
        raise another_backup(found.path)
    if found.definition.is_damaged:
        raise _damaged(found.path, "verify found it damaged")
    return found.path


def _refuse_unless_copy(found: FoundPending, lock: str | None) -> None:
    pending = found.pending
    if pending.copied_from is None or copies_lock_name(pending) != lock:
        raise LockHeldError(
            f"a backup of that name was started there: {found.path}",
            hint="Wait until it ends. If its process was killed, `virtbackup clean -b` there "
            "undoes it.",
        )


def another_backup(path: TargetFile) -> VirtBackupError:
    """Return the error about another backup of the same name."""
    return StorageError(
        f"another backup has its name: {path}",
        hint="Nothing is replaced: copy it to another target, or remove the other one first.",
    )


def is_same_backup(one: Definition, other: Definition) -> bool:
    """Return whether two definitions are of one backup: the same moment, and the same data.

    virt-backup records no digests; of its backups, moment, XML and disks are compared.
    """
    if (one.name, one.date, one.domain_name) != (other.name, other.date, other.domain_name):
        return False
    if one.records and other.records:
        return one.domain_uuid == other.domain_uuid and _digests(one) == _digests(other)
    return one.domain_xml == other.domain_xml and one.disks.keys() == other.disks.keys()


def _digests(definition: Definition) -> Mapping[str, list[tuple[int, str]]]:
    """Return length and digest of each image, by disk; those of the state by the empty name."""
    images = {dev: [record.image, *record.backing] for dev, record in definition.records.items()}
    images[""] = [state.image for state in definition.state_files]
    return {
        dev: [(image.size_bytes, image.digest) for image in of_dev]
        for dev, of_dev in images.items()
    }


def _damaged(path: TargetFile, why: str) -> CorruptError:
    return CorruptError(
        f"a copy is there already, and it is damaged: {path}: {why}",
        hint="Remove it there with `virtbackup forget`, then copy it again.",
    )
