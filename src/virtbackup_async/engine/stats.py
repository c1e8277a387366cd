"""How much the backups hold and take: ``stats``. Reads definitions and the index alone."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from anyio import from_thread, to_thread
from msgspec import Struct
from msgspec.structs import asdict

from virtbackup_async.catalog.scanning import FoundBackup, Scan
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.dates import local_time
from virtbackup_async.engine.listing import GroupBackups, choose_backups
from virtbackup_async.events import (
    DayStats,
    DomainStats,
    Emit,
    Event,
    GroupStats,
    RepositoryStats,
    Warned,
)
from virtbackup_async.repository.chunks import CHUNK_BYTES
from virtbackup_async.repository.measuring import Measured, measure
from virtbackup_async.repository.store import find_repository


class _Sums(Struct, frozen=True):
    """What some backups hold and take, as their definitions say."""

    backups: int
    size_bytes: int
    data_bytes: int
    stored_bytes: int


async def run_stats(config: Config, group_names: Sequence[str], emit: Emit) -> None:
    """Say what is stored: for each domain, group and day, and for each repository.

    Raises:
        NotFoundError: a named group does not exist.
        ConfigError: a named group has no target.
        CorruptError: a repository is damaged.
        StorageError: a repository cannot be read.
    """
    scans: dict[Path, Scan] = {}
    for chosen in await choose_backups(config, group_names, ()):
        if chosen.scan is not None:
            scans[chosen.target] = chosen.scan
        for event in _of_group(chosen):
            emit(event)
    for target, scan in scans.items():
        measured = await to_thread.run_sync(_measure, target)
        if measured is not None:
            emit(_of_repository(target, scan, measured))


def _of_group(chosen: GroupBackups) -> Iterator[Event]:
    if chosen.error is not None:
        yield Warned(str(chosen.error))
        return
    by_domain = _sums_by(chosen.backups, lambda found: found.definition.domain_name)
    for domain, sums in by_domain.items():
        yield DomainStats(chosen.group, domain, **asdict(sums))
    unknown = sum(not found.definition.images for found in chosen.backups)
    if unknown:
        yield Warned(
            f"{chosen.group}: {unknown} backups of virt-backup do not say how long they are"
        )
    yield GroupStats(chosen.group, len(by_domain), **asdict(_sums(chosen.backups)))
    for day, sums in _sums_by(chosen.backups, _day).items():
        yield DayStats(chosen.group, day, **asdict(sums))


def _of_repository(target: Path, scan: Scan, measured: Measured) -> RepositoryStats:
    sums = _sums(f for f in scan.complete if f.definition.packager.type == "repository")
    return RepositoryStats(
        target=str(target),
        backups=sums.backups,
        data_bytes=sums.data_bytes,
        stored_bytes=measured.pack_bytes,
        size_bytes=sums.size_bytes,
        mapped_bytes=measured.mapped_chunks * CHUNK_BYTES,
        chunk_bytes=measured.chunks * CHUNK_BYTES,
        chunk_stored_bytes=measured.chunk_stored_bytes,
    )


def _measure(target: Path) -> Measured | None:
    repository = find_repository(target)
    if repository is None:
        return None
    return measure(target, repository, from_thread.check_cancelled)


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
