"""Which target and which domain an admin means by the name of a backup."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from virtbackup_async.catalog.scanning import Problem, Scan
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.engine.inventory.backup_names import (
    Meaning,
    Place,
    meanings,
    only_one,
    readings,
    refusal,
)
from virtbackup_async.engine.inventory.dates import is_latest
from virtbackup_async.engine.plan import groups_with_target, target_of
from virtbackup_async.errors import ConfigError, StorageError

_DEFINITION_NAME = re.compile(r"\d{8}-\d{6}_.*\.json", re.DOTALL)


class Located(Struct, frozen=True):
    """Where the backup is that a name means.

    Attributes:
        group: the name of the group whose target it is.
        target: the target's directory.
        scan: all that the target holds.
        domain: the domain's exact name.
        date: a date as in ``dates``, or the backup's name; None for the newest.
    """

    group: str
    target: Path
    scan: Scan
    domain: str
    date: str | None


async def locate(
    config: Config,
    group: str | None,
    name: str,
    date: str | None = None,
    now: datetime | None = None,
) -> Located:
    """Return where the backup is that a name means; it may have no backup of that date.

    Args:
        config: the configuration.
        group: says which target to look into; None for all.
        name: a domain's exact name, or what ``backup_names`` takes.
        date: a date, where the name has none; None for the newest.
        now: what dates are told from, aware; None for the clock's time.

    Raises:
        NotFoundError: no such group, or no backup of such a domain.
        ConfigError: the group has no target, no group has, the date cannot be understood, or the
            name can mean several backups.
        StorageError: a target cannot be read that may have the backup.
    """
    groups = groups_with_target(config, () if group is None else [group])
    places, scans, unreadable = await _look_into(groups)
    date = None if date is not None and is_latest(date) else date
    if group is not None and (unreadable or name in places[0].domains):
        # An exact name goes before all other readings: it has meant the domain ever since.
        for error in unreadable.values():
            raise error
        return Located(group, places[0].target, scans[group], name, date)
    found = meanings(name, places, now, is_dated=date is None)
    _refuse_unreadable(name, found, groups, unreadable)
    if not found and date is not None and meanings(name, places, now):
        raise ConfigError(f"{name!r} names a date already", hint=f"Leave out the date {date}.")
    if not found:
        raise refusal(name, places, [one.name for one in groups], now)
    meaning = only_one(name, found)
    place = meaning.place
    scan = scans[place.group]
    return Located(place.group, place.target, scan, meaning.domain, meaning.date or date)


async def _look_into(
    groups: Sequence[Group],
) -> tuple[list[Place], dict[str, Scan], dict[str, StorageError]]:
    """Scan the groups' targets, each once; return also the errors of those that cannot be read."""
    by_target: dict[Path, Scan | StorageError] = {}
    places: list[Place] = []
    scans: dict[str, Scan] = {}
    errors: dict[str, StorageError] = {}
    for group in groups:
        target = target_of(group)
        if target not in by_target:
            by_target[target] = await _scan(target)
        found = by_target[target]
        if isinstance(found, StorageError):
            errors[group.name] = found
        else:
            scans[group.name] = found
            places.append(place_of(group, found))
    return places, scans, errors


async def _scan(target: Path) -> Scan | StorageError:
    try:
        return await Catalog(target).scan()
    except StorageError as error:
        return error


def place_of(group: Group, scan: Scan) -> Place:
    """Return a group's target as the names of backups are looked up in it."""
    backups = {one.definition.name: one.definition.domain_name for one in scan.complete}
    # A domain's directory has its name, but for the rare one that had to be escaped.
    broken = {one.path.stem: one.domain_directory for one in scan.problems if is_definition(one)}
    domains = {*backups.values(), *(one.domain_directory for one in scan.problems)}
    return Place(group.name, target_of(group), domains, broken | backups, group.includes)


def is_definition(problem: Problem) -> bool:
    """Tell whether an unreadable file is named like a definition, so it should be a backup."""
    return _DEFINITION_NAME.fullmatch(problem.path.name) is not None


def _refuse_unreadable(
    name: str,
    found: Sequence[Meaning],
    groups: Sequence[Group],
    unreadable: Mapping[str, StorageError],
) -> None:
    """Raise the error of a target that may have the backup that is meant, or a newer one."""
    for group in groups:
        error = unreadable.get(group.name)
        if error is None:
            continue
        is_meant = any(group.includes(one.domain) for one in found)
        is_named = any(one.group is not None for one in readings(name, [group.name]))
        if not found or is_named or (is_meant and not _names_its_group(name, found)):
            others = f"Name the group to look elsewhere: {found[0]}." if found else error.hint
            raise error.as_kind(StorageError, hint=others)


def _names_its_group(name: str, found: Sequence[Meaning]) -> bool:
    """Tell whether a name begins with its group, or is a backup's own: there is no other."""
    return any(one.date == name or name.startswith(f"{one.place.group}/") for one in found)
