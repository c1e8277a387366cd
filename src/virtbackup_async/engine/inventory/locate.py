"""The target and the domain that an admin means by the name of a backup."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from virtbackup_async.catalog.scanning import Problem, Scan
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
from virtbackup_async.engine.inventory.group_backups import NOTHING, scan_or_error
from virtbackup_async.engine.inventory.guests import Guests, KnownGuest
from virtbackup_async.engine.plan import groups_with_target, target_of
from virtbackup_async.errors import ConfigError, StorageError
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.storage_location import StorageLocation

_DEFINITION_NAME = re.compile(r"\d{8}-\d{6}_.*\.json", re.DOTALL)


class Located(Struct, frozen=True):
    """The place of the backup that a name means.

    Attributes:
        group: the name of the group whose target it is.
        target: the group's target.
        scan: everything in the target.
        guest: the guest, with all its backups in the target.
        date: a date as in ``dates``, or the backup's name; None for the newest.
        guests: all guests of the target.
    """

    group: str
    target: StorageLocation
    scan: Scan
    guest: KnownGuest
    date: str | None
    guests: Guests

    @property
    def domain(self) -> str:
        """The domain's exact name."""
        return self.guest.name


async def locate(
    config: Config,
    group: str | None,
    name: str,
    date: str | None = None,
    now: datetime | None = None,
) -> Located:
    """Return the place of the backup that a name means; the place might lack that date.

    Args:
        config: the configuration.
        group: the group whose target to search; None for all.
        name: a domain's exact name, or a name that ``backup_names`` understands.
        date: a date, if the name has none; None for the newest.
        now: the moment to which dates are relative, aware; None for the clock's time.

    Raises:
        NotFoundError: no such group, or no backup of such a domain.
        ConfigError: the group has no target, no group has one, the date cannot be understood, or
            the name can mean several backups.
        StorageError: a target that might have the backup cannot be read.
    """
    groups = groups_with_target(config, () if group is None else [group])
    places, scans, unreadable = await _look_into(config, groups)
    date = None if date is not None and is_latest(date) else date
    if group is not None and (unreadable or name in places[0].domains):
        # An exact name takes precedence over all other readings: it has always meant the domain.
        for error in unreadable.values():
            raise error
        found = [Meaning(places[0], name, None, guest) for guest in places[0].guests_of(name)]
    else:
        found = meanings(name, places, now, is_dated=date is None)
    if len(found) > 1:  # the date may be a backup's name, which only one of the guests has
        having = [one for one in found if one.guest and date and one.guest.has(date)]
        found = having or found
    _refuse_unreadable(name, found, groups, unreadable)
    if not found and date is not None and meanings(name, places, now):
        raise ConfigError(f"{name!r} names a date already", hint=f"Leave out the date {date}.")
    if not found:
        raise refusal(name, places, [one.name for one in groups], now)
    meaning = only_one(name, found)
    place = meaning.place
    guest = meaning.guest or KnownGuest(Guest(meaning.domain))
    guests = place.guests or Guests(NOTHING)
    return Located(
        place.group, place.target, scans[place.group], guest, meaning.date or date, guests
    )


async def _look_into(
    config: Config,
    groups: Sequence[Group],
) -> tuple[list[Place], dict[str, Scan], dict[str, StorageError]]:
    """Scan each of the groups' targets once; return also the errors of unreadable ones."""
    by_target: dict[StorageLocation, Scan | StorageError] = {}
    guests: dict[StorageLocation, Guests] = {}
    places: list[Place] = []
    scans: dict[str, Scan] = {}
    errors: dict[str, StorageError] = {}
    for group in groups:
        target = target_of(group)
        if target not in by_target:
            by_target[target] = await scan_or_error(config, target)
        found = by_target[target]
        if isinstance(found, StorageError):
            errors[group.name] = found
        else:
            scans[group.name] = found
            if target not in guests:
                guests[target] = Guests(found)
            places.append(place_of(group, found, guests[target]))
    return places, scans, errors


def place_of(group: Group, scan: Scan, guests: Guests) -> Place:
    """Return a group's target for the lookup of backup names in it."""
    backups = {one.definition.name: one.definition.domain_name for one in scan.complete}
    # A domain's directory has its name, except for a rare name that had to be escaped.
    broken = {one.path.stem: one.domain for one in scan.problems if is_definition(one)}
    domains = {*backups.values(), *(one.domain for one in scan.problems)}
    return Place(group.name, target_of(group), domains, broken | backups, group.includes, guests)


def is_definition(problem: Problem) -> bool:
    """Return whether an unreadable file has a definition's name, so that it should be a backup."""
    return _DEFINITION_NAME.fullmatch(problem.path.name) is not None


def _refuse_unreadable(
    name: str,
    found: Sequence[Meaning],
    groups: Sequence[Group],
    unreadable: Mapping[str, StorageError],
) -> None:
    """Raise the error of an unreadable target that might have the meant backup, or a newer one."""
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
    """Return whether a name begins with its group or is a backup's own, so that it is unique."""
    return any(one.date == name or name.startswith(f"{one.place.group}/") for one in found)
