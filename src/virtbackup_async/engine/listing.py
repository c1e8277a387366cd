"""What backups there are: ``list``, and the start of what works on all backups of groups."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup, Problem, Scan
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.patterns import HostPattern, PatternError, any_includes, parse_pattern
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.engine.dates import local_time, time_of
from virtbackup_async.engine.plan import select_groups, target_of
from virtbackup_async.errors import ConfigError, StorageError
from virtbackup_async.events import ListedBackup


class GroupListing(Struct, frozen=True):
    """The backups of a group.

    Attributes:
        backups_by_domain: sorted by domain, each domain's backups oldest first; domains without
            any are there only where known domains were asked for.
        problems: lines about files of the group's domains that are no backup, and should be.
    """

    group: str
    backups_by_domain: dict[str, tuple[ListedBackup, ...]]
    problems: tuple[str, ...] = ()


async def list_backups(
    config: Config,
    group_names: Sequence[str],
    domain_names: Sequence[str],
    *,
    known_domains: Sequence[str] | None,
) -> list[GroupListing]:
    """Return the backups of groups, as their targets hold them now.

    Args:
        config: the configuration.
        group_names: the groups to list; none for all that have a target.
        domain_names: domains, or patterns as in ``hosts``, to show alone; none for all that the
            group's hosts mean. A domain that no group means any more can still be named.
        known_domains: all domains of the hypervisor, to show those without a backup too.

    Raises:
        NotFoundError: a named group does not exist.
        ConfigError: a named group has no target, or one of ``domain_names`` is no pattern.
    """
    chosen = await choose_backups(config, group_names, domain_names)
    return [_listing(backups, known_domains or ()) for backups in chosen]


class GroupBackups(Struct, frozen=True):
    """What a group's target holds of the domains that are meant.

    Attributes:
        backups: oldest first.
        problems: files that should be backups, and are none.
        error: why the target cannot be read.
        target: the group's, where other groups may have their backups as well.
        scan: all that the target holds; None if it cannot be read.
        shows: whether a domain is meant, with a backup or not.
    """

    group: str
    backups: tuple[FoundBackup, ...]
    problems: tuple[Problem, ...]
    error: StorageError | None
    shows: Callable[[str], bool]
    target: Path
    scan: Scan | None


async def choose_backups(
    config: Config, group_names: Sequence[str], domain_names: Sequence[str]
) -> list[GroupBackups]:
    """Return the backups of groups; arguments and errors are those of :func:`list_backups`."""
    patterns = tuple(map(_pattern, domain_names))
    groups = select_groups(config, group_names)
    groups = groups or [group for group in config.groups.values() if group.target]
    scans: dict[Path, Scan | StorageError] = {}
    chosen = []
    for group in groups:
        target = target_of(group)
        if target not in scans:
            scans[target] = await _scan(target)
        shown = _Shown(group, groups, patterns)
        chosen.append(_group_backups(shown, target, scans[target]))
    return chosen


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
    """Scan a target; one that cannot be read must not hide the others."""
    try:
        return await Catalog(target).scan()
    except StorageError as error:
        return error


def _group_backups(shown: _Shown, target: Path, scan: Scan | StorageError) -> GroupBackups:
    if isinstance(scan, StorageError):
        return GroupBackups(shown.group.name, (), (), scan, shown.shows, target, None)
    return GroupBackups(
        shown.group.name,
        tuple(found for found in scan.complete if shown.shows(found.definition.domain_name)),
        # A domain's directory has its name, but for the rare one that had to be escaped.
        tuple(problem for problem in scan.problems if shown.shows(problem.domain_directory)),
        None,
        shown.shows,
        target,
        scan,
    )


def _listing(chosen: GroupBackups, known_domains: Iterable[str]) -> GroupListing:
    backups: dict[str, list[ListedBackup]] = {
        domain: [] for domain in known_domains if chosen.shows(domain)
    }
    for found in chosen.backups:
        listed = _listed(chosen.group, found)
        backups.setdefault(listed.domain, []).append(listed)
    problems = (str(chosen.error),) if chosen.error else ()
    return GroupListing(
        chosen.group,
        {domain: tuple(backups[domain]) for domain in sorted(backups)},
        (*problems, *(problem.message for problem in chosen.problems)),
    )


def _listed(group: str, found: FoundBackup) -> ListedBackup:
    definition = found.definition
    images = definition.images
    verified = definition.verified
    return ListedBackup(
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
    )
