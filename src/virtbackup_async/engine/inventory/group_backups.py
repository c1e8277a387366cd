"""The lookup of all backups of groups, or of some of their domains."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct

from virtbackup_async import events
from virtbackup_async.catalog import pending_file
from virtbackup_async.catalog.scanning import REMOVED_SUFFIX, FoundBackup, Problem, Scan
from virtbackup_async.config.patterns import (
    HostPattern,
    PatternError,
    PatternKind,
    any_includes,
    parse_pattern,
)
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.engine.host_state import open_catalog
from virtbackup_async.engine.inventory.dates import date_of_name, time_of
from virtbackup_async.engine.inventory.guests import Guests, KnownGuest
from virtbackup_async.engine.plan import groups_with_target, target_of
from virtbackup_async.errors import ConfigError, CorruptError, NotFoundError, StorageError
from virtbackup_async.model.storage_location import StorageLocation

NOTHING: Final = Scan((), (), ())


def split_words(config: Config, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words that name groups, and the others: domains of these groups, or of any."""
    groups = [word for word in words if word in config.groups]
    return groups, [word for word in words if word not in config.groups]


class GroupBackups(Struct, frozen=True):
    """The wanted domains' backups in a group's target.

    Attributes:
        backups: oldest first.
        guests: whose backups these are.
        known: all guests of the target.
        problems: files that should be backups, and are not.
        error: why the target cannot be read.
        target: the group's target, which other groups can use as well.
        scan: everything in the target; None if it cannot be read.
        shows: whether a domain is wanted, with a backup or not.
        includes: whether the group's ``hosts`` include a domain.
    """

    group: str
    backups: tuple[FoundBackup, ...]
    problems: tuple[Problem, ...]
    error: StorageError | None
    shows: Callable[[str], bool]
    includes: Callable[[str], bool]
    target: StorageLocation
    scan: Scan | None
    guests: tuple[KnownGuest, ...] = ()
    known: Guests = Guests(NOTHING)

    def word(self, guest: KnownGuest) -> str:
        """Return the shortest text that means only this guest in the target."""
        return self.known.word(guest)


async def choose_backups(
    config: Config,
    group_names: Sequence[str],
    domain_names: Sequence[str],
    *,
    known_domains: Sequence[str] = (),
) -> list[GroupBackups]:
    """Return the backups of groups; arguments and errors are those of ``list_backups``."""
    patterns = tuple(map(domain_pattern, domain_names))
    groups = groups_with_target(config, group_names)
    scans: dict[StorageLocation, Scan | StorageError] = {}
    guests: dict[StorageLocation, Guests] = {}
    chosen = []
    for group in groups:
        target = target_of(group)
        if target not in scans:
            scan = scans[target] = await scan_or_error(config, target)
            guests[target] = Guests(NOTHING if isinstance(scan, StorageError) else scan)
        shown = _Shown(group, groups, patterns)
        chosen.append(_group_backups(shown, target, scans[target], guests[target]))
    unknown = [one for one in patterns if not any(_called(each, one) for each in guests.values())]
    _refuse_unknown(unknown, groups, chosen, {*known_domains}, config.groups)
    return chosen


def _refuse_unknown(
    patterns: Iterable[HostPattern],
    groups: Iterable[Group],
    chosen: Sequence[GroupBackups],
    known_domains: set[str],
    group_names: Iterable[str],
) -> None:
    """Raise NotFoundError if a pattern matches no domain: a typo must not look like no backup.

    If a target cannot be read, nothing is known, and nothing is raised.
    """
    if any(one.scan is None for one in chosen):
        return
    known = {name for group in groups for name in _named_hosts(group)} | known_domains
    for scan in (one.scan for one in chosen if one.scan is not None):
        known |= {found.definition.domain_name for found in scan.complete}
        known |= {problem.domain for problem in scan.problems}
    for pattern in patterns:
        if not pattern.excludes and not any(map(pattern.matches, known)):
            domain, at, _ = pattern.value.rpartition("@")
            if at and domain in known:
                raise NotFoundError(
                    f"{pattern.value} names a backup, not a domain",
                    hint=f"`virtbackup show {pattern.value}` shows it, "
                    f"`virtbackup list {domain}` all backups of the domain.",
                )
            meant = did_you_mean(pattern.value, [*known, *group_names])
            raise NotFoundError(f"no backup of {pattern.text}, and no group names it{meant}")


def _named_hosts(group: Group) -> Iterator[str]:
    patterns = [entry.pattern for entry in group.hosts]
    return (p.value for p in patterns if p.kind is PatternKind.NAME and not p.excludes)


class _Shown(Struct, frozen=True):
    """The choice of the domains and guests that a group's listing shows."""

    group: Group
    groups: Sequence[Group]
    patterns: tuple[HostPattern, ...]

    def shows(self, domain: str) -> bool:
        if not self.patterns:
            return self.group.includes(domain)
        if not any_includes(self.patterns, domain):
            return False
        return self._takes(domain)

    def chosen(self, guests: Guests) -> list[KnownGuest]:
        """Return the guests that are shown; of a part of their backups if a UUID was named."""
        found = {one.guest: one for one in guests.all if self.shows(one.name)}
        for pattern in self.patterns:
            for one in _called(guests, pattern):
                if pattern.excludes:
                    found.pop(one.guest, None)
                elif self._takes(one.name):
                    found.setdefault(one.guest, one)
        return list(found.values())

    def _takes(self, domain: str) -> bool:
        return self.group.includes(domain) or not any(
            group.includes(domain) for group in self.groups
        )


def _called(guests: Guests, pattern: HostPattern) -> Sequence[KnownGuest]:
    """Return the guests that a pattern means by their host, or by their UUID."""
    return guests.called(pattern.value) if pattern.kind is PatternKind.NAME else ()


def domain_pattern(text: str) -> HostPattern:
    """Return the pattern in an argument: a domain, or a regex for domains."""
    try:
        return parse_pattern(text)
    except PatternError as error:
        raise ConfigError(f"domain: {error}") from error


async def scan_or_error(config: Config, target: StorageLocation) -> Scan | StorageError:
    """Return the scan of a target, or why it failed; an unreadable one does not hide the others."""
    try:
        return await open_catalog(config, target).scan()
    except StorageError as error:
        return error


def _group_backups(
    shown: _Shown, target: StorageLocation, scan: Scan | StorageError, guests: Guests
) -> GroupBackups:
    if isinstance(scan, StorageError):
        return GroupBackups(
            shown.group.name, (), (), scan, shown.shows, shown.group.includes, target, None
        )
    chosen = shown.chosen(guests)
    backups = (found for one in chosen for found in one.backups)
    return GroupBackups(
        shown.group.name,
        tuple(sorted(backups, key=lambda found: found.definition.date)),
        tuple(dict.fromkeys(problem for one in chosen for problem in one.problems)),
        None,
        shown.shows,
        shown.group.includes,
        target,
        scan,
        tuple(chosen),
        guests,
    )


def broken_backups(
    chosen: GroupBackups, now_s: float | None = None
) -> tuple[events.BrokenBackup, ...]:
    """Return the backups of a group that cannot be read.

    An unreadable directory counts, because its files were not seen. A file which only records that
    a backup was begun, or is being removed, does not count.
    """
    words = {
        problem.path: chosen.word(guest) for guest in chosen.guests for problem in guest.problems
    }
    return tuple(
        _broken(chosen.group, problem, now_s, words.get(problem.path, problem.domain))
        for problem in chosen.problems
        if not problem.path.name.endswith((pending_file.SUFFIX, REMOVED_SUFFIX))
    )


def _broken(group: str, problem: Problem, now_s: float | None, word: str) -> events.BrokenBackup:
    date = date_of_name(problem.path.name)
    return events.BrokenBackup(
        group,
        problem.domain,
        problem.path.stem,
        str(problem.path),
        problem.reason,
        date=None if date is None else time_of(date).isoformat(),
        date_unix=date,
        age_s=None if date is None or now_s is None else now_s - date,
        uuid=problem.uuid,
        guest=word,
    )


def refuse_what_was_not_seen(
    errors: Iterable[StorageError | None],
    broken: Iterable[events.BrokenBackup],
    whole: Container[str],
) -> None:
    """Raise the error of a command that could not read every backup that it was asked for.

    Args:
        errors: of the targets.
        broken: the backups that it has shown as broken.
        whole: the domains of which it has shown a readable backup.

    Raises:
        StorageError: a target cannot be read.
        CorruptError: a domain has only broken backups.
    """
    for error in errors:
        if error is not None:
            raise error
    lost = dict.fromkeys(one.domain for one in broken if one.domain not in whole)
    if lost:
        raise CorruptError(f"no backup can be read of {', '.join(lost)}, all are broken")
