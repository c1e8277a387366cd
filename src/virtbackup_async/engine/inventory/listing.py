"""The ``list`` command: the backups of groups as events."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import chain

from anyio import to_thread
from msgspec import Struct

from virtbackup_async import events
from virtbackup_async.catalog.scanning import FoundBackup, Scan
from virtbackup_async.config.patterns import (
    PatternKind,
    pattern_of,
)
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.heads.memory import compare, warnings_of
from virtbackup_async.engine.inventory.dates import local_time, start_of, time_of
from virtbackup_async.engine.inventory.group_backups import (
    GroupBackups,
    broken_backups,
    choose_backups,
    domain_pattern,
    refuse_what_was_not_seen,
    split_words,
)
from virtbackup_async.engine.inventory.unclaimed import unclaimed_backups
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import StorageError
from virtbackup_async.files.mounts import space_of
from virtbackup_async.model.backup import BackupState
from virtbackup_async.model.storage_location import StorageLocation

Choose = Callable[[Sequence[events.ListedBackup]], Sequence[events.ListedBackup]]


def _nothing(_domain: str) -> bool:
    return False


class GroupListing(Struct, frozen=True):
    """The backups of a group.

    Attributes:
        guests_by_domain: sorted by domain, the backups of each guest of that name, oldest first;
            includes domains without backups only if known domains were requested.
        broken: the backups of the group's domains that cannot be read.
        problems: lines about other files and directories that cannot be read.
        error: why the target cannot be read; then there is nothing else.
        target: the group's.
        scan: everything in the target.
        shows: whether a domain is wanted, with a backup or not.
    """

    group: str
    guests_by_domain: dict[str, tuple[tuple[events.ListedBackup, ...], ...]]
    broken: tuple[events.BrokenBackup, ...] = ()
    problems: tuple[str, ...] = ()
    error: StorageError | None = None
    target: StorageLocation = StorageLocation.of("")
    scan: Scan | None = None
    shows: Callable[[str], bool] = _nothing

    @property
    def backups_by_domain(self) -> dict[str, tuple[events.ListedBackup, ...]]:
        """The same with the backups of all guests of a name together."""
        return {name: tuple(chain(*guests)) for name, guests in self.guests_by_domain.items()}

    def events(self, choose: Choose = list) -> Iterator[events.Event]:
        """Yield the events; none about a domain if the target is unreadable.

        Args:
            choose: returns the backups to show of a guest's.
        """
        for problem in self.problems:
            yield events.Warned(problem)
        for domain, guests in self.guests_by_domain.items():
            for backups in guests:
                yield from choose(backups)
            if not any(guests) and not any(broken.domain == domain for broken in self.broken):
                yield events.ListedDomain(self.group, domain)
        yield from self.broken
        if self.error is not None:
            yield events.TargetUnreadable(self.group, str(self.target), str(self.error))


async def list_backups(
    config: Config,
    group_names: Sequence[str],
    domain_names: Sequence[str],
    *,
    known_domains: Sequence[str] | None,
    now: datetime | None = None,
) -> list[GroupListing]:
    """Return the backups of groups, as their targets hold them now.

    Args:
        config: the configuration.
        group_names: the groups to list; none for all that have a target.
        domain_names: the only domains to show, or patterns of them as in ``hosts``; none for all
            domains of the group's ``hosts``. A domain that is no longer in a group can be named.
        known_domains: all domains of the hypervisor, to show also those without a backup.
        now: the moment from which ages count; None for the present.

    Raises:
        NotFoundError: a named group does not exist, or one of ``domain_names`` is unknown.
        ConfigError: a named group has no target, no group has one, or one of ``domain_names`` is
            not a valid pattern.
    """
    known = tuple(known_domains or ())
    chosen = await choose_backups(config, group_names, domain_names, known_domains=known)
    # A requested domain is shown even if it has no backup.
    asked = tuple(p.value for p in map(domain_pattern, domain_names) if p.kind is PatternKind.NAME)
    now_s = (now or datetime.now(UTC)).timestamp()
    return [
        _listing(backups, (*known, *filter(backups.includes, asked)), now_s) for backups in chosen
    ]


class ListRequest(Struct, frozen=True):
    """The backups to list.

    Attributes:
        groups: groups, and single domains; no group for all that have a target.
        domains: the only domains to show, or patterns of them as in ``hosts``; none for all domains
            of the groups' ``hosts``.
        with_known: also show the domains that libvirt knows and that have no backup.
        since: show only backups of that date or age and later, see ``dates``.
        latest: show, of each guest, only the newest backup that is not known to be damaged.
    """

    groups: Sequence[str] = ()
    domains: Sequence[str] = ()
    with_known: bool = False
    since: str | None = None
    latest: bool = False


class Listing(Struct, frozen=True):
    """The listed backups.

    Attributes:
        backups: the readable ones, sorted by group, domain and date.
        without_backup: domains that have none, if these were requested.
        broken: the backups that cannot be read.
    """

    backups: tuple[events.ListedBackup, ...]
    without_backup: tuple[events.ListedDomain, ...]
    broken: tuple[events.BrokenBackup, ...]


async def run_list(runtime: Runtime, request: ListRequest) -> Listing:
    """List the backups of groups, as their targets hold them now.

    Raises:
        NotFoundError: a named group does not exist, or a named domain is unknown.
        ConfigError: a named group has no target, no group has one, or a pattern is invalid.
        StorageError: a target cannot be read; the backups in the others were emitted.
        CorruptError: a domain has only broken backups; everything was emitted.
        HypervisorError: libvirt's domains cannot be listed.
    """
    runtime, recording = runtime.recording(
        events.ListedBackup, events.ListedDomain, events.BrokenBackup
    )
    await _list(runtime, request)
    return Listing(
        recording.of(events.ListedBackup),
        recording.of(events.ListedDomain),
        recording.of(events.BrokenBackup),
    )


async def _list(runtime: Runtime, request: ListRequest) -> None:
    """Emit all backups, then raise the error for those that could not be read."""
    config, emit, now = runtime.config, runtime.emit, runtime.now()
    group_names, named = split_words(config, request.groups)
    domain_names = (*request.domains, *map(pattern_of, named))
    since_s = None if request.since is None else start_of(request.since, now)
    known = await runtime.hypervisor.domain_names() if request.with_known else None
    listings = await list_backups(config, group_names, domain_names, known_domains=known, now=now)
    await _warn_of_contradictions(runtime, listings)
    for listing in listings:
        for event in listing.events(_chooser(request, since_s)):
            emit(event)
    for event in await _space_of(listings):
        emit(event)
    # A request for some domains gets no lines about others.
    scans = {} if domain_names else {one.target: one.scan for one in listings if one.scan}
    for target, scan in scans.items():
        left = await to_thread.run_sync(unclaimed_backups, config, target, scan)
        if left is not None:
            emit(left)
    refuse_what_was_not_seen(
        (listing.error for listing in listings),
        (broken for listing in listings for broken in listing.broken),
        {name for one in listings for name, found in one.guests_by_domain.items() if any(found)},
    )


async def _warn_of_contradictions(runtime: Runtime, listings: Sequence[GroupListing]) -> None:
    """Warn, once a target, if it is older than this host has seen it, or was changed."""
    shows: dict[StorageLocation, list[Callable[[str], bool]]] = {}
    scans = {one.target: one.scan for one in listings if one.scan is not None}
    for one in listings:
        shows.setdefault(one.target, []).append(one.shows)
    for target, scan in scans.items():
        wanted = partial(_any_shows, shows[target])
        compared = await compare(runtime.host, runtime.host.catalog(target), scan, wanted)
        for warning in warnings_of(compared, target):
            runtime.emit(warning)


def _any_shows(shows: Iterable[Callable[[str], bool]], domain: str) -> bool:
    return any(shown(domain) for shown in shows)


def _chooser(request: ListRequest, since_s: int | None) -> Choose:
    """Return a function that chooses the backups to show from a guest's, oldest first."""

    def choose(backups: Sequence[events.ListedBackup]) -> Sequence[events.ListedBackup]:
        if request.latest:
            good = [backup for backup in backups if backup.state != BackupState.DAMAGED]
            backups = (good or backups)[-1:]
        return [backup for backup in backups if since_s is None or backup.date_unix >= since_s]

    return choose


async def _space_of(listings: Sequence[GroupListing]) -> list[events.TargetSpace]:
    """Return the space of each readable target whose space is known."""
    groups: dict[StorageLocation, list[str]] = {}
    for one in listings:
        if one.error is None:
            groups.setdefault(one.target, []).append(one.group)
    found = []
    for target, names in groups.items():
        with suppress(OSError, StorageError):
            space = await space_of(target)
            if space is not None:
                room = (space.total_bytes, space.free_bytes)
                found.append(events.TargetSpace(str(target), *room, tuple(names)))
    return found


def _listing(chosen: GroupBackups, known_domains: Iterable[str], now_s: float) -> GroupListing:
    if chosen.error is not None:
        return GroupListing(chosen.group, {}, error=chosen.error, target=chosen.target)
    guests: dict[str, list[tuple[events.ListedBackup, ...]]] = {
        domain: [] for domain in known_domains if chosen.shows(domain)
    }
    for guest in chosen.guests:
        word = chosen.word(guest)
        listed = tuple(_listed(chosen.group, found, now_s, word) for found in guest.backups)
        if listed:
            guests.setdefault(guest.name, []).append(listed)
    broken = broken_backups(chosen, now_s)
    as_broken = {one.definition for one in broken}
    others = (one.message for one in chosen.problems if str(one.path) not in as_broken)
    return GroupListing(
        chosen.group,
        {domain: tuple(guests[domain]) for domain in sorted(guests)},
        broken,
        tuple(others),
        target=chosen.target,
        scan=chosen.scan,
        shows=chosen.shows,
    )


def _listed(group: str, found: FoundBackup, now_s: float, word: str) -> events.ListedBackup:
    definition = found.definition
    images = definition.images
    verified = definition.verified
    return events.ListedBackup(
        group=group,
        domain=definition.domain_name,
        backup=definition.name,
        date=local_time(definition).isoformat(),
        definition=str(found.path),
        disks=tuple(definition.disks),
        packager=definition.packager.type,
        size_bytes=sum(image.size_bytes for image in images) if images else None,
        stored_bytes=sum(image.stored_bytes for image in images) if images else None,
        quiesced=definition.quiesced,
        verified=verified.ok if verified else None,
        verified_date=time_of(verified.date).isoformat() if verified else None,
        pinned=definition.pinned,
        not_quiesced=definition.not_quiesced,
        lacks=tuple(definition.lacks),
        note=definition.note,
        state=str(definition.backup_state),
        date_unix=definition.date,
        age_s=now_s - definition.date,
        uuid=definition.domain_uuid,
        host=definition.host,
        sequence=definition.sequence,
        definition_hash=definition.hash,
        guest=word,
    )
