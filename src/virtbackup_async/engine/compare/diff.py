"""The ``diff`` command: how much of each disk changed between two backups of a domain."""

from contextlib import AsyncExitStack

from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.engine.compare.images import Image, changed_bytes, open_packages
from virtbackup_async.engine.inventory.chosen_backup import find_backup
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import ConfigError, about_disk
from virtbackup_async.events import DiskCompared
from virtbackup_async.model.backup import DiskRecord
from virtbackup_async.packagers.interface import PackageReader

_BY_DIGEST, _BY_MAP, _BY_READING = "digest", "map", "read"


class DiffRequest(Struct, frozen=True):
    """The backups to compare, named as in ``backup_names``."""

    older: str
    newer: str
    group: str | None = None


class _Side(Struct, frozen=True):
    """One of the two backups."""

    found: FoundBackup
    package: PackageReader

    def images_of(self, record: DiskRecord) -> list[Image]:
        return [Image(self.found, self.package, image) for image in (record.image, *record.backing)]


async def run_diff(runtime: Runtime, request: DiffRequest) -> tuple[DiskCompared, ...]:
    """Compare two backups of a domain, disk by disk.

    Raises:
        NotFoundError: there is no such backup.
        ConfigError: a name can mean several backups, or the two are of different domains.
        CorruptError: a backup is damaged.
        StorageError: it cannot be read.
    """
    names = (request.older, request.newer)
    both = tuple([await find_backup(runtime.config, request.group, n, None) for n in names])
    older, newer = (found.definition for found in both)
    if older.domain_name != newer.domain_name:
        raise ConfigError(f"{older.name} and {newer.name} are backups of different domains")
    compared = []
    async with AsyncExitStack() as stack:
        packages = await open_packages(stack, both, runtime.buffers)
        sides = [_Side(*pair) for pair in zip(both, packages, strict=True)]
        for dev in dict.fromkeys((*older.disks, *newer.disks)):
            with about_disk(dev):
                event = await _compare(sides[0], sides[1], dev)
            runtime.emit(event)
            compared.append(event)
    return tuple(compared)


async def _compare(older: _Side, newer: _Side, dev: str) -> DiskCompared:
    records = [side.found.definition.records.get(dev) for side in (older, newer)]
    reason = _why_not(older, newer, dev)
    method = changed = None
    before, after = records
    if reason is None and before is not None and after is not None:
        pairs = list(zip(older.images_of(before), newer.images_of(after), strict=True))
        method = _method(pairs)
        changed = sum([await _changed(*pair) for pair in pairs])
    return DiskCompared(
        domain=newer.found.definition.domain_name,
        older=older.found.definition.name,
        newer=newer.found.definition.name,
        disk=dev,
        changed_bytes=changed,
        method=method,
        reason=reason,
        format=after.image.format if after else None,
        older_size_bytes=before.image.size_bytes if before else None,
        newer_size_bytes=after.image.size_bytes if after else None,
        older_data_bytes=before.image.data_bytes if before else None,
        newer_data_bytes=after.image.data_bytes if after else None,
    )


def _why_not(older: _Side, newer: _Side, dev: str) -> str | None:
    """Return why a disk cannot be compared; None if it can."""
    for side in (older, newer):
        definition = side.found.definition
        if dev not in definition.disks:
            return f"{definition.name} does not have it"
        if dev not in definition.records:
            return f"{definition.name} has no sizes and digests"
    before, after = (side.found.definition.records[dev] for side in (older, newer))
    if before.image.format != after.image.format:
        return f"it was {before.image.format}, and is {after.image.format}"
    if len(before.backing) != len(after.backing):
        return "it has other images below it"
    return None


def _method(pairs: list[tuple[Image, Image]]) -> str:
    if all(map(_are_equal, pairs)):
        return _BY_DIGEST
    is_mapped = all(image.is_mapped for pair in pairs for image in pair)
    return _BY_MAP if is_mapped else _BY_READING


def _are_equal(pair: tuple[Image, Image]) -> bool:
    before, after = (image.record for image in pair)
    return before.digest == after.digest and before.size_bytes == after.size_bytes


async def _changed(before: Image, after: Image) -> int:
    return 0 if _are_equal((before, after)) else await changed_bytes(before, after)
