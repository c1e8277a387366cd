"""The role of a writer: it adds files to a target, and changes none.

A host that is backed up has this role; one who breaks into it has it, too. The *keeper*, another
machine, removes old backups. What a writer may do beyond listing, reading and making directories:

=================================  =================================================================
what                               why, and what a thief can do with it
=================================  =================================================================
put or publish a file under a      packs, segments, maps, definitions. A thief can fill the target
free name                          (the quota ends that) and add backups that are none, which the
                                   rules of a keeper must not count in place of the real ones
``replace`` a file by itself, or   definitions and notes are written so; nothing is changed by it
where there is none
discard a file before it is        a backup that fails leaves nothing. Nobody relies on it yet
finished or published
discard a finished pack: nothing   it stays until the keeper sweeps: others might rely on it
take a lease, and remove it        as long as a thief is connected, no pack is removed for good, and
                                   no backup that the lease names
remove the lease of a dead holder  what its server sees of the lock decides, not the client: living
                                   writers that are served here, or locked here, cannot be harmed
hold a directory                   as long as a thief is connected, no definition in it is changed
keep the reserve                   makes files of fixed names and lengths
=================================  =================================================================

Below ``.virtbackup-repository`` only the names of packs, segments and leases are free, and those
of a repository that is being made: not the list of packs to be removed, nor the one of known
damage. A note that says a backup is being removed, or is unfinished, is a keeper's as well.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from virtbackup_async.errors import StorageError
from virtbackup_async.repository.storage.interface import (
    GrowingFile,
    HiddenFile,
    LeaseFile,
    LeaseLook,
    Storage,
)
from virtbackup_async.repository.storage.layout import DIRECTORY, LEASES, REPOSITORY_FILE
from virtbackup_async.repository.storage.served.wrapped import WrappedStorage

_HINT: Final = "Do it on the keeper's machine, with its key; this one is a writer's."
_LEASE_BYTES: Final = 4096
_SWEEP: Final = f"{LEASES}/sweep"
_FREE: Final = re.compile(
    rf"{re.escape(DIRECTORY)}/"
    r"(packs/[0-9a-f]{2}/[0-9a-f]{32}\.pack|index/[0-9a-f]+-[0-9]+\.index|leases/[0-9a-f]{24})"
)
_DIRECTORIES: Final = re.compile(
    rf"{re.escape(DIRECTORY)}(/(packs|index|leases|keys|packs/[0-9a-f]{{2}}))?"
)
_OF_A_NEW_REPOSITORY: Final = re.compile(rf"{re.escape(DIRECTORY)}/(repository|keys/[^/]+)")
_OF_THE_KEEPER: Final = (".removed", ".pending")


class AppendOnlyStorage(WrappedStorage):
    """A storage to which files can only be added."""

    def make_directory(self, name: str) -> None:
        if _is_internal(name) and not _DIRECTORIES.fullmatch(name):
            raise self._refused("create", name)
        super().make_directory(name)

    def replace(self, name: str, data: bytes, *, keep_owner: bool = False) -> None:
        del keep_owner  # nothing is replaced
        self._check_name(name)
        try:
            self.inner.put_new(name, data)
        except FileExistsError:
            if self.inner.read(name, len(data) + 1) != data:
                raise self._refused("replace", name) from None

    def rename(self, name: str, new: str) -> None:
        del new
        raise self._refused("rename", name)

    def put_new(self, name: str, data: bytes) -> None:
        self._check_name(name)
        super().put_new(name, data)

    def overwrite(self, name: str, data: bytes) -> None:
        del data
        raise self._refused("overwrite", name)

    def create(self, name: str) -> GrowingFile:
        self._check_name(name)
        return _Growing(self.inner.create(name))

    def create_hidden(self, name: str) -> HiddenFile:
        self._check_name(name)
        return _Hidden(self.inner.create_hidden(name), self.inner, name)

    def remove(self, name: str) -> None:
        if not _is_lease(name):
            raise self._refused("remove", name)
        try:
            self.remove_lease_if(name, lambda _: True)
        except FileNotFoundError:
            return

    def take_lease(self, name: str, content: bytes, directories: Sequence[str]) -> LeaseFile:
        if not _is_lease(name) or name == _SWEEP or len(content) > _LEASE_BYTES:
            raise self._refused("take the lease", name)
        return super().take_lease(name, content, directories)

    def remove_lease_if(self, name: str, is_dead: Callable[[LeaseLook], bool]) -> None:
        if not _is_lease(name):
            raise self._refused("remove", name)
        # The caller is shown each lease, also one that it cannot remove.
        super().remove_lease_if(name, lambda look: is_dead(look) and not look.is_locked)

    def remove_temporary_files(self, directories: Iterable[str], before_s: float) -> None:
        del directories, before_s
        raise self._refused("remove temporary files of", "")

    def release_reserve(self) -> bool:
        raise self._refused("release the reserve of", "")

    def _check_name(self, name: str) -> None:
        """Check that a writer may give a file this name.

        Raises:
            StorageError: it may not.
        """
        if _is_internal(name):
            is_new = _OF_A_NEW_REPOSITORY.fullmatch(name) is not None
            if is_new and not self.inner.exists(REPOSITORY_FILE):
                return
            is_known = is_new and name == REPOSITORY_FILE  # the name is taken: nothing happens
            if not is_known and not _FREE.fullmatch(name):
                raise self._refused("create", name)
        elif name.endswith(_OF_THE_KEEPER):
            raise self._refused("create", name)

    def _refused(self, doing: str, name: str) -> StorageError:
        return StorageError(
            f"refused: this key may only add files, and not {doing} {self.where(name)}", hint=_HINT
        )


class _Growing:
    """A growing file that stays once it is finished."""

    def __init__(self, file: GrowingFile) -> None:
        self._file = file
        self._is_finished = False

    def append(self, data: bytes | bytearray) -> None:
        self._file.append(data)

    def finish_soon(self) -> None:
        self._file.finish_soon()

    def finish(self) -> None:
        self._is_finished = True
        self._file.finish()

    def discard(self) -> None:
        if not self._is_finished:
            self._file.discard()


class _Hidden:
    """A hidden file that never takes the place of another."""

    def __init__(self, file: HiddenFile, storage: Storage, name: str) -> None:
        self._file = file
        self._storage = storage
        self._directory = name.rpartition("/")[0]

    def append(self, data: bytes | bytearray) -> None:
        self._file.append(data)

    def finish(self) -> None:
        self._file.finish()

    def publish(self, on_named: Callable[[], None]) -> None:
        self._file.publish_exclusively()
        on_named()
        self._storage.sync_names(self._directory)

    def publish_exclusively(self) -> None:
        self._file.publish_exclusively()

    def discard(self) -> None:
        self._file.discard()


def _is_internal(name: str) -> bool:
    return name == DIRECTORY or name.startswith(f"{DIRECTORY}/")


def _is_lease(name: str) -> bool:
    return name.startswith(f"{LEASES}/") and name.count("/") == LEASES.count("/") + 1
