"""The target that backups are copied into, and how they are packed there."""

import os
from pathlib import Path

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.engine.host_state import open_catalog
from virtbackup_async.engine.plan import target_of
from virtbackup_async.errors import ConfigError
from virtbackup_async.files.directories import check_target
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.packager import PACKAGER_TYPES, SHARING_TYPE, type_of
from virtbackup_async.model.storage_location import StorageLocation


class Destination(Struct, frozen=True):
    """Where backups are copied to.

    Attributes:
        catalog: the backups that are there.
        packager: what writes their packages there.
    """

    catalog: Catalog
    packager: Packager

    @property
    def target(self) -> StorageLocation:
        """The target."""
        return self.catalog.target


async def find_destination(config: Config, word: str, packager: str | None = None) -> Destination:
    """Return the target that a word means: a group's, or the one of a path.

    A target of the configuration keeps its packager; any other gets a repository.

    Args:
        config: the configuration.
        word: the name of a group, a path or a URL.
        packager: the type of packager to use; None for the target's own.

    Raises:
        ConfigError: the group has no target, or there is no such packager.
        StorageError: the target is missing: what should be mounted there may not be.
    """
    if packager is not None and packager not in PACKAGER_TYPES:
        meant = did_you_mean(packager, PACKAGER_TYPES)
        raise ConfigError(f"unknown packager {packager!r}{meant}")
    place = StorageLocation.of(word)
    if place.is_local:
        place = StorageLocation.of(await to_thread.run_sync(place.directory.absolute))
    group = config.groups.get(word) or _group_at(config, place)
    target = target_of(group) if group is not None else place
    await to_thread.run_sync(_check, target)
    catalog = open_catalog(config, target)
    if packager is None and group is not None and not config.of_target:
        return Destination(catalog, group.packager)
    chosen = Packager(packager or SHARING_TYPE)
    if target.plain_directory is None and not type_of(chosen).uses_repository:
        raise ConfigError(f"{chosen.type} packages need a directory, and {target} is none")
    return Destination(catalog, chosen)


def _check(target: StorageLocation) -> None:
    if target.is_local:
        check_target(target.directory)


async def is_same_target(source: StorageLocation, destination: StorageLocation) -> bool:
    """Return whether two places are one target, by whatever names.

    Raises:
        ConfigError: one of them lies in the other, whose files its own would be among.
    """
    return await to_thread.run_sync(_is_same, source, destination)


def _group_at(config: Config, place: StorageLocation) -> Group | None:
    """Return the group whose target is at a path or URL, which says nothing of keys and servers."""
    for group in config.groups.values():
        target = group.target
        if target is not None and (target.kind, target.path) == (place.kind, place.path):
            return group
    return None


def _is_same(source: StorageLocation, destination: StorageLocation) -> bool:
    if not (source.is_local and destination.is_local):
        places = [(one.kind, one.path, one.endpoint) for one in (source, destination)]
        return places[0] == places[1]
    here, there = Path(os.path.realpath(source.path)), Path(os.path.realpath(destination.path))
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
