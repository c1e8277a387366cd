"""Verifying backups in a repository: a chunk that several backups share is read once.

::

    each backup's maps      read in full; image lengths and digests compared with the definition
    their chunks            each read once, in the order of the packs, by all processors; or a
                            share of them, chosen at random
    lost chunks             reported by backup, disk and range of bytes

An image's digest is a hash over the ids of its chunks. So if a map gives the recorded digest, and
each chunk matches its id, they are the image byte for byte. Called by ``verify``. Invariant: damage
to one backup stops no other.
"""

import logging
from collections.abc import Sequence

from anyio import current_time, from_thread, to_thread
from msgspec import Struct, field

from virtbackup_async.engine.reading import first_file
from virtbackup_async.engine.restore.plan import RestoredImage, RestorePlan, plan_restore
from virtbackup_async.engine.verify.chunks import CheckedChunks, Wanted, check_chunks, open_check
from virtbackup_async.engine.verify.results import Results, SelectedBackup, joined
from virtbackup_async.errors import CorruptError, DigestMismatchError, VirtBackupError
from virtbackup_async.events import DiskDamaged, RepositoryChecked, VerifyStarted
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.packager import Location
from virtbackup_async.model.read_share import ALL, ReadShare
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import (
    CheckSession,
    LostRanges,
    MapFacts,
    Repository,
    find_repository,
    lost_ranges_of,
    need_map,
)

_log = logging.getLogger(__name__)
_SHOWN_RANGES = 3


async def verify_repository(
    target: StorageLocation,
    backups: Sequence[SelectedBackup],
    results: Results,
    share: ReadShare = ALL,
) -> None:
    """Verify backups in the repository of one target; emit a last event for each of them.

    Args:
        target: where the repository is.
        backups: to verify.
        results: takes them; if it is quick, nothing is read.
        share: how much of their chunks is read.
    """
    try:
        repository = await to_thread.run_sync(_find, target)
        reads = [file.stored_name for one in backups for file in first_file(one.found)]
        async with open_check(repository, results.emit, reads) as opened:
            wanted = Wanted(None if results.quick else share, lists=not target.is_local)
            await _Verifying(repository, opened, results, wanted).verify(backups)
    except VirtBackupError as error:
        for backup in backups:
            await results.bad(backup, error)


async def verify_opened(
    repository: Repository,
    opened: CheckSession,
    backups: Sequence[SelectedBackup],
    results: Results,
) -> None:
    """Verify backups in an open repository; emit a last event for each of them.

    Raises:
        StorageError: the repository cannot be read.
    """
    wanted = Wanted(None if results.quick else ALL)
    await _Verifying(repository, opened, results, wanted).verify(backups)


def _find(target: StorageLocation) -> Repository:
    repository = find_repository(target)
    if repository is None:
        raise CorruptError(f"the repository of {target} is missing")
    return repository


class _Backup(Struct):
    """A backup, and the facts found so far."""

    chosen: SelectedBackup
    plan: RestorePlan
    data_bytes: int = 0
    missing: int = 0
    failures: list[VirtBackupError] = field(default_factory=list)
    readable: list[tuple[str, RestoredImage]] = field(default_factory=list)

    def map_name(self, image: RestoredImage) -> str:
        definition, directory = self.chosen.found.definition, self.chosen.found.path.parent
        location = Location.below(directory, definition.packager, definition.name)
        return location.stored_name(image.file)


class _Verifying:
    def __init__(
        self, repository: Repository, opened: CheckSession, results: Results, wanted: Wanted
    ) -> None:
        self._repository = repository
        self._opened = opened
        self._checking = opened.checking
        self._results = results
        self._emit = results.emit
        self._wanted = wanted

    async def verify(self, chosen: Sequence[SelectedBackup]) -> None:
        began_s = current_time()
        backups = [backup for one in chosen if (backup := await self._begin(one)) is not None]
        checked = await check_chunks(self._opened, self._wanted, self._emit)
        for backup in backups:
            await self._end(backup, began_s, checked)
        self._emit(
            RepositoryChecked(
                target=self._repository.target,
                backups=len(chosen),
                chunks=self._checking.count_needed(),
                stored_bytes=checked.stored_bytes,
                damaged_chunks=self._checking.count_bad(),
                duration_s=round(current_time() - began_s, 3),
                read_bytes=checked.checked_bytes,
                read_chunks=checked.checked_chunks,
            )
        )

    async def _begin(self, chosen: SelectedBackup) -> _Backup | None:
        """Read a backup's maps, and ask for their chunks."""
        definition = chosen.found.definition
        try:
            backup = _Backup(chosen, plan_restore(definition))
        except VirtBackupError as error:
            await self._results.bad(chosen, error)
            return None
        self._emit(
            VerifyStarted(chosen.group, chosen.domain, chosen.name, backup.plan.devs, chosen.uuid)
        )
        for disk, image in _images(backup.plan):
            try:
                facts = await to_thread.run_sync(self._need, backup, image)
            except VirtBackupError as error:
                backup.failures.append(error)
            else:
                backup.data_bytes += facts.data_bytes
                backup.missing += facts.missing
                backup.readable.append((disk, image))
        return backup

    def _need(self, backup: _Backup, image: RestoredImage) -> MapFacts:
        name = backup.map_name(image)
        where = self._repository.storage.where(name)
        size_bytes = image.record.size_bytes if image.record else None
        try:
            facts = need_map(
                self._repository, name, self._checking, from_thread.check_cancelled, size_bytes
            )
        except FileNotFoundError as error:
            raise CorruptError(f"package is missing: {where}") from error
        if image.expected_digest not in {None, facts.digest}:
            _log.info("%s: digest %s, recorded %s", where, facts.digest, image.expected_digest)
            raise DigestMismatchError(f"{where} is not the map of what was backed up")
        return facts

    async def _end(self, backup: _Backup, began_s: float, checked: CheckedChunks) -> None:
        if backup.missing or self._checking.has_losses:
            for disk, image in backup.readable:
                await self._find_losses(backup, disk, image)
        if backup.failures:
            await self._results.bad(backup.chosen, joined(backup.failures))
        else:
            await self._results.good(
                backup.chosen,
                digests=backup.plan.is_verifiable,
                data_bytes=backup.data_bytes,
                duration_s=current_time() - began_s,
                amount=checked.amount,
            )

    async def _find_losses(self, backup: _Backup, disk: str, image: RestoredImage) -> None:
        try:
            losses = await to_thread.run_sync(self._losses, backup, image)
        except VirtBackupError as error:
            backup.failures.append(error)
            return
        if losses.lost_bytes:
            backup.failures.append(CorruptError(_in_words(image.file, losses)))
            self._emit(
                DiskDamaged(
                    group=backup.chosen.group,
                    domain=backup.chosen.domain,
                    backup=backup.chosen.name,
                    disk=disk,
                    file=image.file,
                    lost_bytes=losses.lost_bytes,
                    ranges=tuple((extent.start, extent.length) for extent in losses.ranges),
                    more_ranges=losses.more_ranges,
                    uuid=backup.chosen.uuid,
                )
            )

    def _losses(self, backup: _Backup, image: RestoredImage) -> LostRanges:
        name = backup.map_name(image)
        try:
            return lost_ranges_of(
                self._repository, name, self._checking, from_thread.check_cancelled
            )
        except FileNotFoundError as error:
            where = self._repository.storage.where(name)
            raise CorruptError(f"package is missing: {where}") from error


def _images(plan: RestorePlan) -> list[tuple[str, RestoredImage]]:
    of_disks = [(disk.dev, image) for disk in plan.disks for image in disk.images]
    return [*of_disks, *((state.kind, state.image) for state in plan.state)]


def _in_words(file: str, losses: LostRanges) -> str:
    shown = ", ".join(map(_range, losses.ranges[:_SHOWN_RANGES]))
    more = len(losses.ranges[_SHOWN_RANGES:]) + losses.more_ranges
    also = f" and {more} more ranges" if more else ""
    return f"bytes {shown}{also} of {file} are lost"


def _range(extent: Extent) -> str:
    return f"{extent.start} to {extent.end - 1}"
