"""What the other target has of a backup: nothing, the same backup, or something in its way."""

from collections.abc import Mapping

from virtbackup_async.catalog.scanning import FoundBackup, FoundPending, Scan
from virtbackup_async.engine.undo.find_domain import copies_lock_name
from virtbackup_async.errors import CorruptError, LockHeldError, StorageError, VirtBackupError
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.target_file import TargetFile


class Standing:
    """What one domain's directory in the other target has, by the names of backups."""

    def __init__(self, scan: Scan, lock: str | None = None) -> None:
        """Take what a scan found.

        Args:
            scan: the domain's directory.
            lock: of the domain's copies; what others left behind is undone under it.
        """
        self._complete = {found.definition.name: found for found in scan.complete}
        self._problems = {problem.path.stem: problem for problem in scan.problems}
        self._removed = {removed.definition.name: removed for removed in scan.removed}
        self._pending = {found.pending.name: found for found in scan.pending}
        self._lock = lock

    @property
    def has_dead_copies(self) -> bool:
        """Whether copies were begun and not ended; or are being made now."""
        return any(map(self._is_copy, self._pending.values()))

    def find_copy(self, definition: Definition) -> TargetFile | None:
        """Return the definition of a backup's copy; None if there is none.

        Raises:
            StorageError: another backup has its name there.
            CorruptError: the copy is there, and it is damaged.
            LockHeldError: a backup of that name is being made there.
        """
        name = definition.name
        if name in self._complete:
            return _checked(definition, self._complete[name])
        if name in self._problems:
            raise _damaged(self._problems[name].path, self._problems[name].reason)
        if name in self._removed:
            path = self._removed[name].path
            raise StorageError(
                f"{path} is being removed", hint="Run `virtbackup clean` there first."
            )
        if name in self._pending and not self._is_copy(self._pending[name]):
            raise LockHeldError(
                f"a backup of that name was started there: {self._pending[name].path}",
                hint="Wait until it ends. If its process was killed, `virtbackup clean -b` there "
                "undoes it.",
            )
        return None

    def _is_copy(self, found: FoundPending) -> bool:
        pending = found.pending
        return pending.copied_from is not None and copies_lock_name(pending) == self._lock


def _checked(definition: Definition, found: FoundBackup) -> TargetFile:
    if not is_same_backup(definition, found.definition):
        raise another_backup(found.path)
    if found.definition.is_damaged:
        raise _damaged(found.path, "verify found it damaged")
    return found.path


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
