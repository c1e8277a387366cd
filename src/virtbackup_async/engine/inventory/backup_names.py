"""The names by which an admin means a backup: one grammar for all commands. Pure.

::

    web                          the newest backup of the domain
    web@latest                   the same
    web@2026-11-27               the last backup of a date; ``dates`` has all ways to write one
    20261127-030000_3_web        a backup's own name, as ``list --json`` shows it
    production/web@yesterday     in the target of a group, where several targets have such a domain

The names of domains and groups can contain ``@`` and ``/``, so a text can have several readings. A
reading counts if a target has backups of the domain, and the rest is a date. Two readings that mean
different backups are refused, so that nobody restores a backup by mistake. A domain whose own name
reads like a date of another one is written ``web@today@latest``.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from msgspec import Struct

from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.engine.inventory.dates import LATEST, is_latest, spans_of
from virtbackup_async.errors import ConfigError, NotFoundError
from virtbackup_async.model.storage_location import StorageLocation

_SHOWN: Final = 5


class Reading(Struct, frozen=True):
    """One way to read a text.

    Attributes:
        domain: the domain's name in this reading.
        date: the date, or the backup's name, in this reading; None for the newest backup.
        group: the named group; None if none is named.
    """

    domain: str
    date: str | None = None
    group: str | None = None


class Place(Struct, frozen=True):
    """A target as its group sees it.

    Attributes:
        group: the group's name.
        target: its directory, which other groups can use as well.
        domains: the domains that have backups in the target, readable or not.
        backups: the domain of each backup, by the backup's name.
        wants: whether to look for a domain here if the text names no group.
    """

    group: str
    target: StorageLocation
    domains: Collection[str]
    backups: Mapping[str, str]
    wants: Callable[[str], bool]


class Meaning(Struct, frozen=True):
    """The backup that a text means: the domain's backup in the place, of the date or the newest."""

    place: Place
    domain: str
    date: str | None = None

    def is_whole(self, text: str) -> bool:
        """Return whether a text is only the domain's name, with or without its group."""
        return self.date is None and text in {self.domain, f"{self.place.group}/{self.domain}"}

    def __str__(self) -> str:
        """Return a text that means only this backup."""
        text = f"{self.place.group}/{self.domain}@{self.date or LATEST}"
        if self.date is None or len(meanings(text, [self.place])) == 1:
            return text
        return f"{self.place.group}/{self.domain} --date {self.date}"


def readings(text: str, groups: Iterable[str] = ()) -> list[Reading]:
    """Return all readings of a text, those with the longest domain first.

    Args:
        text: the text that was typed.
        groups: the names of the groups, for a text that begins with one.
    """
    found = list(_split(text, None))
    for group in groups:
        if text.startswith(f"{group}/"):
            found += _split(text[len(group) + 1 :], group)
    return found


def _split(text: str, group: str | None) -> Iterator[Reading]:
    yield Reading(text, None, group)
    at = len(text)
    while (at := text.rfind("@", 0, at)) >= 0:
        yield Reading(text[:at], text[at + 1 :], group)


def is_date(text: str, now: datetime | None = None) -> bool:
    """Return whether a text can be a date, whether or not there are backups of it."""
    if is_latest(text):
        return True
    with suppress(ConfigError):
        return bool(spans_of(text, now))
    return False


def meanings(
    text: str, places: Sequence[Place], now: datetime | None = None, *, is_dated: bool = True
) -> list[Meaning]:
    """Return the meanings of a text, each backup once; none if no target has such a backup.

    A group that wants the domain takes precedence over one that only has old backups of it.

    Args:
        text: the text that was typed.
        places: where to look.
        now: the moment to which dates are relative; None for the clock's time.
        is_dated: whether the text may name a date, or a backup.
    """
    everywhere = [one for place in places for one in _meanings_in(place, text, now)]
    if not is_dated:
        everywhere = [(one, is_wanted) for one, is_wanted in everywhere if one.is_whole(text)]
    wanted = [one for one, is_wanted in everywhere if is_wanted]
    chosen = wanted or [one for one, _ in everywhere]
    unique: dict[tuple[StorageLocation, str, str | None], Meaning] = {}
    for one in chosen:
        unique.setdefault((one.place.target, one.domain, one.date), one)
    return list(unique.values())


def _meanings_in(place: Place, text: str, now: datetime | None) -> Iterator[tuple[Meaning, bool]]:
    """Yield each meaning in one place, and whether the place is the right one for it."""
    for reading in readings(text, [place.group]):
        domain, date = reading.domain, reading.date
        is_known = domain in place.domains
        if is_known and (date is None or is_date(date, now) or place.backups.get(date) == domain):
            is_wanted = reading.group is not None or place.wants(domain)
            is_newest = date is None or is_latest(date)
            yield Meaning(place, domain, None if is_newest else date), is_wanted
        if date is None and domain in place.backups:
            of = place.backups[domain]
            yield Meaning(place, of, domain), reading.group is not None or place.wants(of)


def only_one(text: str, found: Sequence[Meaning]) -> Meaning:
    """Return the only meaning of a text, of which there is at least one.

    Raises:
        ConfigError: there are several.
    """
    first, *others = found
    if others:
        spelled = ", ".join(repr(str(one)) for one in found[:_SHOWN])
        more = ", ..." if len(found) > _SHOWN else ""
        raise ConfigError(
            f"{text!r} can mean {len(found)} backups", hint=f"Write one of {spelled}{more}."
        )
    return first


def refusal(
    text: str, places: Sequence[Place], groups: Collection[str], now: datetime | None = None
) -> ConfigError | NotFoundError:
    """Return the error for a text without a meaning: the problem, and similar names."""
    known = {domain for place in places for domain in place.domains}
    read = readings(text, groups)
    for reading in read:
        if reading.date is not None and reading.domain in known and not is_date(reading.date, now):
            try:
                spans_of(reading.date, now)
            except ConfigError as error:
                return error
    if text in groups:
        domains = sorted({d for p in places if p.group == text for d in p.domains if p.wants(d)})
        example = f"{text}/{domains[0]}" if domains else f"{text}/DOMAIN"
        return NotFoundError(
            f"{text} is a group, not a domain", hint=f"Name a domain of it, as {example}."
        )
    dated = [one for one in read if one.date is None or is_date(one.date, now)]
    meant = min(dated, key=lambda one: len(one.domain))
    targets = {p.target for p in places if meant.group in {None, p.group}}
    where = f" in {targets.pop()}" if len(targets) == 1 else ""
    near = did_you_mean(meant.domain, known)
    if not near and "/" in meant.domain:
        near = did_you_mean(meant.domain, (f"{p.group}/{d}" for p in places for d in p.domains))
    return NotFoundError(f"no backup of {meant.domain}{where}{near}")
