"""What this host knows by itself, whatever the files of a target say.

Its notes of backups that it began, in a directory of its own; and where the targets of its
configuration are, so that nothing inside of them is ever taken for an image.
"""

import os
import socket
from collections.abc import Iterable
from pathlib import Path

import platformdirs
from anyio import to_thread
from msgspec import Struct

from virtbackup_async.catalog.heads import TargetMemory
from virtbackup_async.catalog.host_notes import HostNotes, Note, Notes
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.schema import Config
from virtbackup_async.errors import ConfigError, ImageError, StorageError
from virtbackup_async.host.domain_locks import lock_directory
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.host.local import LocalHost
from virtbackup_async.model.backup import Pending
from virtbackup_async.model.storage_location import StorageLocation

STATE_VARIABLE = "VIRTBACKUP_STATE_DIRECTORY"
SYSTEM_STATE_DIRECTORY = Path("/var/lib/virtbackup")
_NAME = "virtbackup"


class Host(Struct, frozen=True):
    """This host.

    Attributes:
        notes: of backups that it began.
        targets: as the configuration names them.
        images: the machine that has the domains' images.
    """

    notes: HostNotes
    targets: tuple[Path, ...]
    images: ImageHost = LocalHost()

    async def note(self, pending: Pending, catalog: Catalog) -> Note:
        """Write a durable note of a backup that is about to begin.

        Raises:
            StorageError: it cannot be written, or could be forged.
        """
        await to_thread.run_sync(self.check_state_directory)
        try:
            path = catalog.pending_path(pending)
            return await self.notes.create(pending, path, catalog.target)
        except StorageError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            raise StorageError(
                f"cannot note the backup in {self.notes.state_directory}: "
                f"{error.__cause__.strerror}",
                hint="Without a note it could not be undone: make room there, or set "
                "`state_directory` to another place.",
            ) from error

    def catalog(self, target: StorageLocation) -> Catalog:
        """Return the catalog of a target, with the pending files that this host has of it."""
        return Catalog(target, self.notes.state_directory)

    async def read_notes(self) -> Notes:
        """Return all notes.

        Raises:
            StorageError: they cannot be read, or could be forged.
        """
        await to_thread.run_sync(self.check_state_directory)
        return await self.notes.scan()

    def target_around(self, path: Path) -> Path | None:
        """Return the target that contains a file, by its name or through links; None if none does.

        Blocks.
        """
        places = _names_of(path)
        return next((target for target in self.targets if _is_around(target, places)), None)

    def refuse_in_target(self, what: str, paths: Iterable[Path]) -> None:
        """Make sure that none of the images lies in a target. Blocks.

        Raises:
            ImageError: one does; anyone who can write to the target controls it.
        """
        for path in paths:
            target = self.target_around(path)
            if target is not None:
                raise ImageError(
                    f"{what}: {path} lies in the target {target}, where no image is looked for",
                    hint="Move the image out of the target, or the target to another directory: "
                    "who may write to a target could make an image read or write any file.",
                )

    def memory(self, target: StorageLocation) -> TargetMemory:
        """Return what this host remembers of a target. Blocks.

        Raises:
            StorageError: the state directory is in a target, or the target cannot be reached.
            CorruptError: the target's repository is damaged.
            ConfigError: the target's key file does not fit.
        """
        self.check_state_directory()
        return TargetMemory(self.notes.state_directory, target)

    def check_state_directory(self) -> None:
        """Make sure that the state directory is in no target, where others can write. Blocks.

        Raises:
            StorageError: it is in one.
        """
        state = self.notes.state_directory
        target = self.target_around(state)
        if target is not None:
            raise StorageError(
                f"the state directory {state} lies in the target {target}",
                hint="Set `state_directory` to one that only its own user can write to.",
            )


def host_name() -> str:
    """Return the name of this host, as definitions and histories have it."""
    return socket.gethostname()


def this_host(config: Config, locks: Path | None = None) -> Host:
    """Return what this host knows, as the configuration says where to look.

    Args:
        config: the configuration.
        locks: the directory of the locks on domains; None for where all processes look.

    Raises:
        ConfigError: the environment names no absolute path for the state directory.
    """
    named = dict.fromkeys(group.target for group in config.groups.values() if group.target)
    targets = (target.directory for target in named if target.is_local)
    state = state_directory(config)
    return Host(HostNotes(state), tuple(targets), LocalHost(locks or lock_directory(state)))


def open_catalog(config: Config, target: StorageLocation) -> Catalog:
    """Return the catalog of a target, with the pending files that this host has of it.

    Raises:
        ConfigError: these are in the state directory, for which the environment names no absolute
            path.
    """
    is_plain = target.plain_directory is not None
    return Catalog(target, None if is_plain else state_directory(config))


def state_directory(config: Config) -> Path:
    """Return where this host keeps what it notes for itself.

    The environment's ``VIRTBACKUP_STATE_DIRECTORY``, the configuration's ``state_directory``; else
    ``/var/lib/virtbackup`` for root, and for others a directory below ``XDG_STATE_HOME``.

    Raises:
        ConfigError: the environment names no absolute path.
    """
    named = os.environ.get(STATE_VARIABLE)
    if named:
        if not Path(named).is_absolute():
            raise ConfigError(f"{STATE_VARIABLE} is {named!r}, no absolute path")
        return Path(named)
    if config.state_directory is not None:
        return config.state_directory
    if os.geteuid() == 0:
        return SYSTEM_STATE_DIRECTORY
    return platformdirs.user_state_path(_NAME)


def _names_of(path: Path) -> tuple[Path, Path]:
    return Path(os.path.normpath(path.absolute())), Path(os.path.realpath(path))


def _is_around(target: Path, places: Iterable[Path]) -> bool:
    return any(at == place or at in place.parents for at in _names_of(target) for place in places)
