"""The backups that a request selects, sorted into the work of each domain."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct, field

from virtbackup_async.catalog.scanning import FoundBackup, Scan
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.copy.destination import Destination, is_same_target
from virtbackup_async.engine.inventory.chosen_by_words import choose_by_words
from virtbackup_async.engine.inventory.dates import start_of, time_of
from virtbackup_async.engine.inventory.group_backups import GroupBackups, broken_backups
from virtbackup_async.engine.plan import find_group
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.undo.find_domain import copies_lock_name
from virtbackup_async.errors import ConfigError, NotFoundError, StorageError
from virtbackup_async.events import BrokenBackup
from virtbackup_async.model.guest import Guest, guest_of
from virtbackup_async.model.storage_location import StorageLocation


class CopyRequest(Struct, frozen=True):
    """Which backups to copy, and where to.

    Attributes:
        target: the name of a group whose target it is, or a path.
        words: groups, domains and single backups; none for all.
        groups: only backups of these groups.
        packager: the type of packager in that target; None for the target's own.
        latest: only the newest backup of each domain.
        since: an age or a date: only backups made since then.
        new: only backups that are newer than all that the target has of their domain.
        wait_s: how long to wait for another process that copies the domain's backups.
        dry_run: whether to say only what would be copied.
    """

    target: str
    words: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    packager: str | None = None
    latest: bool = False
    since: str | None = None
    new: bool = False
    wait_s: float = 0
    dry_run: bool = False


class DomainCopies(Struct, frozen=True):
    """The backups of one domain to copy, oldest first.

    Attributes:
        group: the group that selected them.
        domain: the domain's name.
        uuid: the domain's UUID; None if its backups do not say it.
        lock: the name of the lock on the copies of its backups; None if all are broken.
        source: the target that they are in.
        backups: the backups, complete ones.
        broken: those that cannot be read.
        there: the domain's backups in the other target, as they were at first.
    """

    group: str
    domain: str
    uuid: str | None
    lock: str | None
    source: StorageLocation
    backups: tuple[FoundBackup, ...]
    broken: tuple[BrokenBackup, ...]
    there: Scan

    @property
    def guest(self) -> Guest:
        """The guest that they are of."""
        return Guest(self.domain, self.uuid)


async def select_copies(
    runtime: Runtime, request: CopyRequest, destination: Destination
) -> tuple[list[DomainCopies], StorageError | None]:
    """Return the work of a request, domain by domain, and why a source cannot be read.

    Raises:
        NotFoundError: there is no such group, domain or backup, or there is no backup at all.
        ConfigError: a name or a date cannot be understood, or source and target are the same.
        StorageError: the other target cannot be read.
    """
    now = runtime.now()
    if request.since is not None:
        start_of(request.since, now)  # a typo must not wait for the targets
    for name in request.groups:
        find_group(runtime.config, name)
    chosen = await choose_by_words(runtime, (*request.groups, *request.words))
    sources = [one for one in chosen if not await is_same_target(one.target, destination.target)]
    if chosen and not sources:
        raise ConfigError(
            f"the backups are in {destination.target} already",
            hint="Name another target with --to.",
        )
    unreadable = next((one.error for one in sources if one.error is not None), None)
    if unreadable is None and not any(one.backups or broken_backups(one) for one in sources):
        raise NotFoundError("there is no backup to copy", hint="Make one: virtbackup backup.")
    works = [
        await _work(request, destination, now, key, backups)
        for key, backups in _by_domain(sources).items()
    ]
    return [work for work in works if work is not None], unreadable


async def select_new(
    source: StorageLocation, destination: Destination, group: str, guest: Guest, backup: str
) -> DomainCopies | None:
    """Return the work after a backup: to copy it, and all that are newer than the newest copy.

    Args:
        source: the target that the backup is in.
        destination: where copies go.
        group: the group that it was made for.
        guest: the guest that it is of.
        backup: the backup's name.

    Raises:
        ConfigError: source and target are the same, or lie in each other.
        StorageError: a target cannot be read.
    """
    if await is_same_target(source, destination.target):
        raise ConfigError(f"the backups are in {destination.target} already")
    complete = (await Catalog(source).scan_guest(guest)).complete
    locks = {found.definition.name: copies_lock_name(found.definition) for found in complete}
    lock = locks.get(backup)
    if lock is None:
        raise NotFoundError(f"{backup} was removed meanwhile")
    # Another domain can have had this name at that time.
    backups = _Backups([one for one in complete if locks[one.definition.name] == lock])
    request = CopyRequest(str(destination.target), new=True)
    key = _Key(group, source, guest.name, guest.uuid, lock)
    return await _work(request, destination, time_of(0), key, backups)


class _Key(Struct, frozen=True):
    group: str
    source: StorageLocation
    domain: str
    uuid: str | None
    lock: str | None


class _Backups(Struct):
    complete: list[FoundBackup] = field(default_factory=list)
    broken: list[BrokenBackup] = field(default_factory=list)


def _by_domain(sources: Sequence[GroupBackups]) -> dict[_Key, _Backups]:
    """Sort the backups; each comes once, even if several groups include its domain."""
    seen: set[str] = set()
    sorted_out: dict[_Key, _Backups] = {}

    def of(group: GroupBackups, guest: Guest, lock: str | None) -> _Backups:
        key = _Key(group.group, group.target, guest.name, guest.uuid, lock)
        return sorted_out.setdefault(key, _Backups())

    for one in sources:
        for found in one.backups:
            if str(found.path) not in seen:
                lock = copies_lock_name(found.definition)
                of(one, guest_of(found.definition), lock).complete.append(found)
            seen.add(str(found.path))
        for broken in broken_backups(one):
            if broken.definition not in seen:
                of(one, Guest(broken.domain, broken.uuid), None).broken.append(broken)
            seen.add(broken.definition)
    return sorted_out


async def _work(
    request: CopyRequest, destination: Destination, now: datetime, key: _Key, backups: _Backups
) -> DomainCopies | None:
    there = await destination.catalog.scan_guest(Guest(key.domain, key.uuid))
    since = _since(request, there, now)
    complete = [one for one in backups.complete if one.definition.date >= since]
    complete.sort(key=lambda found: found.definition.date)
    broken = [one for one in backups.broken if (one.date_unix or since) >= since]
    if request.latest:
        complete, broken = complete[-1:], []
    if not complete and not broken:
        return None
    return DomainCopies(
        key.group,
        key.domain,
        key.uuid,
        key.lock,
        key.source,
        tuple(complete),
        tuple(broken),
        there,
    )


def _since(request: CopyRequest, there: Scan, now: datetime) -> int:
    """Return from which moment on backups are wanted, in seconds since the epoch."""
    since = 0 if request.since is None else start_of(request.since, now)
    if request.new:
        newest = max((found.definition.date for found in there.complete), default=-1)
        since = max(since, newest + 1)
    return since
