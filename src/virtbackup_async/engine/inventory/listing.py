"""The ``list`` command, and the lookup of all backups of groups."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from anyio import to_thread
from msgspec import Struct

from virtbackup_async import events
from virtbackup_async.catalog import pending_file
from virtbackup_async.catalog.scanning import REMOVED_SUFFIX, FoundBackup, Problem, Scan
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.patterns import (
    HostPattern,
    PatternError,
    PatternKind,
    any_includes,
    parse_pattern,
    pattern_of,
)
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.engine.inventory.dates import date_of_name, local_time, start_of, time_of
from virtbackup_async.engine.inventory.unclaimed import unclaimed_backups
from virtbackup_async.engine.plan import groups_with_target, target_of
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import ConfigError, CorruptError, NotFoundError, StorageError
from virtbackup_async.files.mounts import answer_in_time, space_at
from virtbackup_async.model.backup import BackupState

Choose = Callable[[Sequence[events.ListedBackup]], Sequence[events.ListedBackup]]


class GroupListing(Struct, frozen=True):
    """The backups of a group.

    Attributes:
        backups_by_domain: sorted by domain, each domain's backups oldest first; domains without
            any are there only where known domains were asked for.
        broken: what should be a backup of the group's domains, and cannot be read.
        problems: lines about other files and directories that cannot be read.
        error: why the target cannot be read; then there is nothing else.
        target: the group's.
        scan: all that it holds.
    """

    group: str
    backups_by_domain: dict[str, tuple[events.ListedBackup, ...]]
    broken: tuple[events.BrokenBackup, ...] = ()
    problems: tuple[str, ...] = ()
    error: StorageError | None = None
    target: Path = Path()
    scan: Scan | None = None

    def events(self, choose: Choose = list) -> Iterator[events.Event]:
        """Yield the events; an unreadable target has nothing to say about any domain.

        Args:
            choose: returns the backups of a domain that are shown.
        """
        for problem in self.problems:
            yield events.Warned(problem)
        for domain, backups in self.backups_by_domain.items():
            yield from choose(backups)
            if not backups and not any(broken.domain == domain for broken in self.broken):
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
        domain_names: domains, or patterns as in ``hosts``, to show alone; none for all that the
            group's hosts mean. A domain that no group means any more can still be named.
        known_domains: all domains of the hypervisor, to show those without a backup too.
        now: the moment that ages count from; None for the present.

    Raises:
        NotFoundError: a named group does not exist,
            or nobody knows one of ``domain_names``.
        ConfigError: a named group has no target, or no group has, or one of ``domain_names`` is
            no pattern.
    """
    known = tuple(known_domains or ())
    chosen = await choose_backups(config, group_names, domain_names, known_domains=known)
    # A domain that was asked for is shown also where there is nothing to show of it.
    asked = tuple(p.value for p in map(_pattern, domain_names) if p.kind is PatternKind.NAME)
    now_s = (now or datetime.now(UTC)).timestamp()
    return [
        _listing(backups, (*known, *filter(backups.includes, asked)), now_s) for backups in chosen
    ]


class ListRequest(Struct, frozen=True):
    """What to list.

    Attributes:
        groups: groups, and single domains; no group for all that have a target.
        domains: domains, or patterns as in ``hosts``, to show alone; none for all that the
            groups' hosts mean.
        with_known: show also the domains that libvirt knows and that have no backup.
        since: show only backups of that date or age and later, see ``dates``.
        latest: show only the newest backup of each domain that is not known to be damaged.
    """

    groups: Sequence[str] = ()
    domains: Sequence[str] = ()
    with_known: bool = False
    since: str | None = None
    latest: bool = False


class Listing(Struct, frozen=True):
    """What backups there are.

    Attributes:
        backups: those that can be read, sorted by group, domain and date.
        without_backup: domains that have none, where they were asked for.
        broken: what should be a backup and cannot be read.
    """

    backups: tuple[events.ListedBackup, ...]
    without_backup: tuple[events.ListedDomain, ...]
    broken: tuple[events.BrokenBackup, ...]


async def run_list(runtime: Runtime, request: ListRequest) -> Listing:
    """List the backups of groups, as their targets hold them now.

    Raises:
        NotFoundError: a named group does not exist, or nobody knows a named domain.
        ConfigError: a named group has no target, or no group has, or a pattern is none.
        StorageError: a target cannot be read; the backups in the others were emitted.
        CorruptError: of some domain there are broken backups alone; everything was emitted.
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
    """Emit all backups, then raise the error for what could not be read."""
    config, emit, now = runtime.config, runtime.emit, runtime.now()
    group_names, named = split_words(config, request.groups)
    domain_names = (*request.domains, *map(pattern_of, named))
    since_s = None if request.since is None else start_of(request.since, now)
    known = await runtime.hypervisor.domain_names() if request.with_known else None
    listings = await list_backups(config, group_names, domain_names, known_domains=known, now=now)
    for listing in listings:
        for event in listing.events(_chooser(request, since_s)):
            emit(event)
    for event in await _space_of(listings):
        emit(event)
    # Who asks for some domains is not told of others.
    scans = {} if domain_names else {one.target: one.scan for one in listings if one.scan}
    for target, scan in scans.items():
        left = await to_thread.run_sync(unclaimed_backups, config, target, scan)
        if left is not None:
            emit(left)
    refuse_what_was_not_seen(
        (listing.error for listing in listings),
        (broken for listing in listings for broken in listing.broken),
        {domain for one in listings for domain, found in one.backups_by_domain.items() if found},
    )


def split_words(config: Config, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words that are groups, and all others: domains of them, or of any group."""
    groups = [word for word in words if word in config.groups]
    return groups, [word for word in words if word not in config.groups]


def _chooser(request: ListRequest, since_s: int | None) -> Choose:
    """Return what chooses the backups of a domain, oldest first, that are shown."""

    def choose(backups: Sequence[events.ListedBackup]) -> Sequence[events.ListedBackup]:
        if request.latest:
            good = [backup for backup in backups if backup.state != BackupState.DAMAGED]
            backups = (good or backups)[-1:]
        return [backup for backup in backups if since_s is None or backup.date_unix >= since_s]

    return choose


async def _space_of(listings: Sequence[GroupListing]) -> list[events.TargetSpace]:
    """Return the space of each target that can be read; none where it is not known."""
    groups: dict[Path, list[str]] = {}
    for one in listings:
        if one.error is None:
            groups.setdefault(one.target, []).append(one.group)
    found = []
    for target, names in groups.items():
        with suppress(OSError, StorageError):
            space = await answer_in_time(space_at, target)
            room = (space.total_bytes, space.free_bytes)
            found.append(events.TargetSpace(str(target), *room, tuple(names)))
    return found


class GroupBackups(Struct, frozen=True):
    """Return the backups in a group's target of the wanted domains.

    Attributes:
        backups: oldest first.
        problems: files that should be backups, and are none.
        error: why the target cannot be read.
        target: the group's, where other groups may have their backups as well.
        scan: all that the target holds; None if it cannot be read.
        shows: whether a domain is meant, with a backup or not.
        includes: whether the group's hosts mean a domain.
    """

    group: str
    backups: tuple[FoundBackup, ...]
    problems: tuple[Problem, ...]
    error: StorageError | None
    shows: Callable[[str], bool]
    includes: Callable[[str], bool]
    target: Path
    scan: Scan | None


async def choose_backups(
    config: Config,
    group_names: Sequence[str],
    domain_names: Sequence[str],
    *,
    known_domains: Sequence[str] = (),
) -> list[GroupBackups]:
    """Return the backups of groups; arguments and errors are those of :func:`list_backups`."""
    patterns = tuple(map(_pattern, domain_names))
    groups = groups_with_target(config, group_names)
    scans: dict[Path, Scan | StorageError] = {}
    chosen = []
    for group in groups:
        target = target_of(group)
        if target not in scans:
            scans[target] = await _scan(target)
        shown = _Shown(group, groups, patterns)
        chosen.append(_group_backups(shown, target, scans[target]))
    _refuse_unknown(patterns, groups, chosen, {*known_domains}, config.groups)
    return chosen


def _refuse_unknown(
    patterns: Iterable[HostPattern],
    groups: Iterable[Group],
    chosen: Sequence[GroupBackups],
    known_domains: set[str],
    group_names: Iterable[str],
) -> None:
    """Raise NotFoundError if a pattern matches no domain: a typo must not look like no backup.

    Where a target cannot be read, it cannot be told.
    """
    if any(one.scan is None for one in chosen):
        return
    known = {name for group in groups for name in _named_hosts(group)} | known_domains
    for scan in (one.scan for one in chosen if one.scan is not None):
        known |= {found.definition.domain_name for found in scan.complete}
        known |= {problem.domain_directory for problem in scan.problems}
    for pattern in patterns:
        if not pattern.excludes and not any(map(pattern.matches, known)):
            meant = did_you_mean(pattern.value, [*known, *group_names])

            meant = did_you_mean(pattern.value, known | {group.name for group in groups})
            raise NotFoundError(f"no backup of {pattern.text}, and no group names it{meant}")


def _named_hosts(group: Group) -> Iterator[str]:
    patterns = [entry.pattern for entry in group.hosts]
    return (p.value for p in patterns if p.kind is PatternKind.NAME and not p.excludes)


class _Shown(Struct, frozen=True):
    """Which domains a group's listing shows."""

    group: Group
    groups: Sequence[Group]
    patterns: tuple[HostPattern, ...]

    def shows(self, domain: str) -> bool:
        if not self.patterns:
            return self.group.includes(domain)
        if not any_includes(self.patterns, domain):
            return False
        return self.group.includes(domain) or not any(
            group.includes(domain) for group in self.groups
        )


def _pattern(text: str) -> HostPattern:
    try:
        return parse_pattern(text)
    except PatternError as error:
        raise ConfigError(f"domain: {error}") from error


async def _scan(target: Path) -> Scan | StorageError:
    """Scan a target; an unreadable one does not hide the others."""
    try:
        return await Catalog(target).scan()
    except StorageError as error:
        return error


def _group_backups(shown: _Shown, target: Path, scan: Scan | StorageError) -> GroupBackups:
    if isinstance(scan, StorageError):
        return GroupBackups(
            shown.group.name, (), (), scan, shown.shows, shown.group.includes, target, None
        )
    return GroupBackups(
        shown.group.name,
        tuple(found for found in scan.complete if shown.shows(found.definition.domain_name)),
        # A domain's directory has its name, but for the rare one that had to be escaped.
        tuple(problem for problem in scan.problems if shown.shows(problem.domain_directory)),
        None,
        shown.shows,
        shown.group.includes,
        target,
        scan,
    )


def broken_backups(
    chosen: GroupBackups, now_s: float | None = None
) -> tuple[events.BrokenBackup, ...]:
    """Return the backups of a group that cannot be read.

    A directory that cannot be read counts: what it holds was not seen. What only says that a backup
    was begun, or is being removed, does not.
    """
    return tuple(
        _broken(chosen.group, problem, now_s)
        for problem in chosen.problems
        if not problem.path.name.endswith((pending_file.SUFFIX, REMOVED_SUFFIX))
    )


def _broken(group: str, problem: Problem, now_s: float | None) -> events.BrokenBackup:
    date = date_of_name(problem.path.name)
    return events.BrokenBackup(
        group,
        problem.domain_directory,
        problem.path.stem,
        str(problem.path),
        problem.reason,
        date=None if date is None else time_of(date).isoformat(),
        date_unix=date,
        age_s=None if date is None or now_s is None else now_s - date,
    )


def refuse_what_was_not_seen(
    errors: Iterable[StorageError | None],
    broken: Iterable[events.BrokenBackup],
    whole: Container[str],
) -> None:
    """Raise the error of a command that could not read all it was asked for.

    Args:
        errors: of the targets.
        broken: what was shown as such.
        whole: the domains of which it has shown a backup.

    Raises:
        StorageError: a target cannot be read.
        CorruptError: of some domain there are broken backups alone.
    """
    for error in errors:
        if error is not None:
            raise error
    lost = dict.fromkeys(one.domain for one in broken if one.domain not in whole)
    if lost:
        raise CorruptError(f"no backup can be read of {', '.join(lost)}, all are broken")


def _listing(chosen: GroupBackups, known_domains: Iterable[str], now_s: float) -> GroupListing:
    if chosen.error is not None:
        return GroupListing(chosen.group, {}, error=chosen.error, target=chosen.target)
    backups: dict[str, list[events.ListedBackup]] = {
        domain: [] for domain in known_domains if chosen.shows(domain)
    }
    for found in chosen.backups:
        listed = _listed(chosen.group, found, now_s)
        backups.setdefault(listed.domain, []).append(listed)
    broken = broken_backups(chosen, now_s)
    as_broken = {one.definition for one in broken}
    others = (one.message for one in chosen.problems if str(one.path) not in as_broken)
    return GroupListing(
        chosen.group,
        {domain: tuple(backups[domain]) for domain in sorted(backups)},
        broken,
        tuple(others),
        target=chosen.target,
        scan=chosen.scan,
    )


def _listed(group: str, found: FoundBackup, now_s: float) -> events.ListedBackup:
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
    )
