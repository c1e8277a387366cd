"""The target that backups are copied into, and how they are packed there."""

import os
from pathlib import Path

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.engine.plan import target_of
from virtbackup_async.errors import ConfigError
from virtbackup_async.files.directories import check_target
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.packager import PACKAGER_TYPES, SHARING_TYPE
from virtbackup_async.model.storage_location import StorageLocation


class Destination(Struct, frozen=True):
    """Where backups are copied to.

    Attributes:
        target: the target.
        packager: what writes their packages there.
    """

    target: Path
    packager: Packager

    @property
    def catalog(self) -> Catalog:
        """The backups that are there."""
        return Catalog(self.target)


async def find_destination(config: Config, word: str, packager: str | None = None) -> Destination:
    """Return the target that a word means: a group's, or the one of a path.

    A target of the configuration keeps its packager; any other gets a repository.

    Args:
        config: the configuration.
        word: the name of a group, or a path.
        packager: the type of packager to use; None for the target's own.

    Raises:
        ConfigError: the group has no target, or there is no such packager.
        StorageError: the target is missing: what should be mounted there may not be. Or it is no
            local directory.
    """
    if packager is not None and packager not in PACKAGER_TYPES:
        meant = did_you_mean(packager, PACKAGER_TYPES)
        raise ConfigError(f"unknown packager {packager!r}{meant}")
    place = StorageLocation.of(word)
    if place.is_local:
        place = StorageLocation.of(await to_thread.run_sync(place.directory.absolute))
    group = config.groups.get(word) or _group_at(config, place)
    target = target_of(group) if group is not None else place.directory
    await to_thread.run_sync(check_target, target)
    if packager is None and group is not None and not config.of_target:
        return Destination(target, group.packager)
    return Destination(target, Packager(packager or SHARING_TYPE))


async def is_same_target(source: Path, destination: Path) -> bool:
    """Return whether two paths are of one target, by whatever names.

    Raises:
        ConfigError: one of them lies in the other, whose files its own would be among.
    """
    return await to_thread.run_sync(_is_same, source, destination)


def _group_at(config: Config, place: StorageLocation) -> Group | None:
    return next((one for one in config.groups.values() if one.target == place), None)


def _is_same(source: Path, destination: Path) -> bool:
    here, there = Path(os.path.realpath(source)), Path(os.path.realpath(destination))
    try:
        if here == there or here.samefile(there):
            return True
    except OSError:
        return False  # one of them is missing, which whoever reads it reports
    if here in there.parents or there in here.parents:
        raise ConfigError(
            f"{destination} and {source} lie in each other",
            hint="Copy to a directory of its own, best on another machine.",
        )
    return False
