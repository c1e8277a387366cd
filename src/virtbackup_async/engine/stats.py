"""How much the backups hold and take: ``stats``. Reads definitions and the lengths of files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from anyio import to_thread

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.listing import choose_backups
from virtbackup_async.engine.plan import find_group, target_of
from virtbackup_async.events import DomainStats, Emit, RepositoryStats, Warned
from virtbackup_async.repository.layout import list_packs
from virtbackup_async.repository.store import find_repository


async def run_stats(config: Config, group_names: Sequence[str], emit: Emit) -> None:
    """Say for each domain of the groups, and for each of their repositories, what is stored.

    Raises:
        NotFoundError: a named group does not exist.
        ConfigError: a named group has no target.
        CorruptError: a repository is damaged.
        StorageError: a repository cannot be read.
    """
    targets: dict[Path, None] = {}
    for chosen in await choose_backups(config, group_names, ()):
        targets[target_of(find_group(config, chosen.group))] = None
        if chosen.error is not None:
            emit(Warned(str(chosen.error)))
        by_domain: dict[str, list[FoundBackup]] = {}
        for found in chosen.backups:
            by_domain.setdefault(found.definition.domain_name, []).append(found)
        for domain in sorted(by_domain):
            size_bytes, data_bytes, stored_bytes = _sums(by_domain[domain])
            count = len(by_domain[domain])
            emit(DomainStats(chosen.group, domain, count, size_bytes, data_bytes, stored_bytes))
    for target in targets:
        pack_bytes = await to_thread.run_sync(_pack_bytes, target)
        if pack_bytes is not None:
            scan = await Catalog(target).scan()
            users = [f for f in scan.complete if f.definition.packager.type == "repository"]
            _, data_bytes, _ = _sums(users)
            emit(RepositoryStats(str(target), len(users), data_bytes, pack_bytes))


def _sums(backups: Iterable[FoundBackup]) -> tuple[int, int, int]:
    """Return the length of all images, their data, and what they were stored in."""
    images = [image for found in backups for image in found.definition.images]
    return (
        sum(image.size_bytes for image in images),
        sum(image.data_bytes for image in images),
        sum(image.stored_bytes for image in images),
    )


def _pack_bytes(target: Path) -> int | None:
    """Return the length of all packs of a target's repository; None if it has none."""
    repository = find_repository(target)
    if repository is None:
        return None
    return sum(repository.pack_path(pack).lstat().st_size for pack in list_packs(repository))
