"""The ``stats`` command: how much data the backups hold, and the space they take."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from anyio import from_thread, to_thread
from msgspec import Struct
from msgspec.structs import asdict

from virtbackup_async import events, repository
from virtbackup_async.catalog.history import read_history
from virtbackup_async.catalog.scanning import FoundBackup, Scan
from virtbackup_async.engine.inventory.dates import local_time
from virtbackup_async.engine.inventory.freed import freed_by_each
from virtbackup_async.engine.inventory.group_backups import (
    GroupBackups,
    broken_backups,
    choose_backups,
    refuse_what_was_not_seen,
)
from virtbackup_async.engine.inventory.unclaimed import unclaimed_backups
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import StorageError
from virtbackup_async.model.packager import type_of
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository import CHUNK_BYTES

if TYPE_CHECKING:  # numpy takes long to load, and most targets need none
    from virtbackup_async.repository import Totals


REQUEST_DAYS: Final = 30
"""Providers charge by the month."""


class _Sums(Struct, frozen=True):
    """The sums of some backups, by their definitions."""

    backups: int
    size_bytes: int
    data_bytes: int
    stored_bytes: int


class StatsRequest(Struct, frozen=True):
    """The groups to measure.

    Attributes:
        groups: none for all that have a target.
        each_backup: also measure the bytes that each backup's removal would free, which reads all
            maps of a repository.
    """

    groups: Sequence[str] = ()
    each_backup: bool = False


class Stats(Struct, frozen=True):
    """The data and space of backups; ``backups`` only if ``each_backup`` was requested."""

    groups: tuple[events.GroupStats, ...]
    domains: tuple[events.DomainStats, ...]
    days: tuple[events.DayStats, ...]
    backups: tuple[events.BackupStats, ...]
    repositories: tuple[events.RepositoryStats, ...]
    requests: tuple[events.PastRequests, ...] = ()


async def run_stats(runtime: Runtime, request: StatsRequest) -> Stats:
    """Measure the data and space of each domain, group and day, and of each repository.

    Raises:
        NotFoundError: a named group does not exist.
        ConfigError: a named group has no target.
        CorruptError: a repository is damaged, or a domain has only broken backups.
        StorageError: a target or a repository cannot be read; the others are reported anyway.
    """
    runtime, recording = runtime.recording(
        events.GroupStats,
        events.DomainStats,
        events.DayStats,
        events.BackupStats,
        events.RepositoryStats,
        events.PastRequests,
    )
    await _measure_all(runtime, request)
    return Stats(
        recording.of(events.GroupStats),
        recording.of(events.DomainStats),
        recording.of(events.DayStats),
        recording.of(events.BackupStats),
        recording.of(events.RepositoryStats),
        recording.of(events.PastRequests),
    )


async def _measure_all(runtime: Runtime, request: StatsRequest) -> None:
    config, emit = runtime.config, runtime.emit
    scans: dict[StorageLocation, Scan] = {}
    groups = await choose_backups(config, request.groups, ())
    for chosen in groups:
        if chosen.scan is not None:
            scans[chosen.target] = chosen.scan
        for event in _of_group(chosen):
            emit(event)
    if request.each_backup:
        await _say_of_each(groups, scans, emit)
    for target, scan in scans.items():
        measured = await to_thread.run_sync(measure_repository, target)
        if measured is not None:
            emit(_of_repository(target, scan, measured))
        past = await _past_requests(target, runtime.now())
        if past is not None:
            emit(past)
        left = await to_thread.run_sync(unclaimed_backups, config, target, scan)
        if left is not None:
            emit(left)
    refuse_what_was_not_seen(
        (chosen.error for chosen in groups),
        (broken for chosen in groups for broken in broken_backups(chosen)),
        {found.definition.domain_name for chosen in groups for found in chosen.backups},
    )


def _of_group(chosen: GroupBackups) -> Iterator[events.Event]:
    if chosen.error is not None:
        yield events.TargetUnreadable(chosen.group, str(chosen.target), str(chosen.error))
        return
    yield from broken_backups(chosen)
    guests = [guest for guest in chosen.guests if guest.backups]
    for guest in guests:
        yield events.DomainStats(
            chosen.group,
            guest.name,
            **asdict(_sums(guest.backups)),
            uuid=guest.uuid,
            host=guest.host,
            guest=chosen.word(guest),
        )
    for guest in guests:
        lacking = sum(bool(found.definition.lacks) for found in guest.backups)
        if lacking:
            yield events.Warned(
                f"disks or state were left out of {lacking} of its {len(guest.backups)} backups",
                chosen.word(guest),
            )
    unknown = sum(not found.definition.images for found in chosen.backups)
    if unknown:
        yield events.Warned(
            f"{chosen.group}: {unknown} backups of virt-backup do not say how long they are"
        )
    yield events.GroupStats(chosen.group, len(guests), **asdict(_sums(chosen.backups)))
    for day, sums in _sums_by(chosen.backups, _day).items():
        yield events.DayStats(chosen.group, day, **asdict(sums))


async def _say_of_each(
    groups: Iterable[GroupBackups], scans: Mapping[StorageLocation, Scan], emit: events.Emit
) -> None:
    freed: dict[TargetFile, int] = {}
    for target, scan in scans.items():
        freed |= await to_thread.run_sync(freed_by_each, target, scan.complete)
    for chosen in groups:
        for found in chosen.backups:
            emit(_of_backup(chosen.group, found, freed[found.path]))


def _of_backup(group: str, found: FoundBackup, freed_bytes: int) -> events.BackupStats:
    definition, sums = found.definition, _sums([found])
    return events.BackupStats(
        group=group,
        domain=definition.domain_name,
        backup=definition.name,
        date=local_time(definition).isoformat(),
        packager=definition.packager.type,
        size_bytes=sums.size_bytes,
        data_bytes=sums.data_bytes,
        stored_bytes=sums.stored_bytes,
        freed_bytes=freed_bytes,
        uuid=definition.domain_uuid,
        host=definition.host,
    )


def _of_repository(
    target: StorageLocation, scan: Scan, measured: "Totals"
) -> events.RepositoryStats:
    sums = _sums(f for f in scan.complete if type_of(f.definition.packager).uses_repository)
    return events.RepositoryStats(
        target=str(target),
        backups=sums.backups,
        data_bytes=sums.data_bytes,
        stored_bytes=measured.pack_bytes,
        size_bytes=sums.size_bytes,
        mapped_bytes=measured.mapped_chunks * CHUNK_BYTES,
        chunk_bytes=measured.chunks * CHUNK_BYTES,
        chunk_stored_bytes=measured.chunk_stored_bytes,
    )


async def _past_requests(target: StorageLocation, now: datetime) -> events.PastRequests | None:
    """Return the requests to a target of all its runs of the last days; None if there were none."""
    if target.is_local:
        return None
    since_s = (now - timedelta(days=REQUEST_DAYS)).timestamp()
    try:
        history = await read_history(target)
    except (OSError, StorageError):
        return None  # of a run this is a part that nothing else needs
    runs = [run for run in history.runs if run.start >= since_s and run.requests]
    if not runs:
        return None
    by_verb: Counter[str] = Counter()
    for run in runs:
        by_verb.update(run.requests)
    return events.PastRequests(
        target=str(target),
        days=REQUEST_DAYS,
        runs=len(runs),
        requests=dict(by_verb),
        sent_bytes=sum(run.sent_bytes for run in runs),
        received_bytes=sum(run.received_bytes for run in runs),
    )


def measure_repository(target: StorageLocation) -> "Totals | None":
    """Return the data and space of a target's repository; None if it has none. Blocks.

    Raises:
        CorruptError: it is damaged.
        StorageError: it cannot be read.
    """
    found = repository.find_repository(target)
    if found is None:
        return None
    maps = partial(list_maps, found.storage)
    return repository.total_usage(found, maps, from_thread.check_cancelled)


def _day(found: FoundBackup) -> str:
    return local_time(found.definition).date().isoformat()


def _sums_by(backups: Iterable[FoundBackup], key: Callable[[FoundBackup], str]) -> dict[str, _Sums]:
    parts: defaultdict[str, list[FoundBackup]] = defaultdict(list)
    for found in backups:
        parts[key(found)].append(found)
    return {name: _sums(parts[name]) for name in sorted(parts)}


def _sums(backups: Iterable[FoundBackup]) -> _Sums:
    found = list(backups)
    images = [image for one in found for image in one.definition.images]
    return _Sums(
        len(found),
        sum(image.size_bytes for image in images),
        sum(image.data_bytes for image in images),
        sum(image.stored_bytes for image in images),
    )
