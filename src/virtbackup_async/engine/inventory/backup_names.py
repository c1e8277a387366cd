"""The names by which an admin means a backup: one grammar for all commands. Pure.

::

    web                          the newest backup of the domain
    web@latest                   the same
    web@2026-11-27               the last backup of a date; ``dates`` has all ways to write one
    20261127-030000_3_web        a backup's own name, as ``list --json`` shows it
    production/web@yesterday     in the target of a group, where several targets have such a domain
    kvm1/web                     the guest of a host, where several hosts have such a domain
    production/kvm1/web          both
    0b1c2d3e-…-3a4b5c6d7e8f      the guest with that UUID

A text is read as the name of a host, or as a UUID, only if it means nothing else: so no text that
means a domain or a group ever changes its meaning because of a host's name.

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
from virtbackup_async.engine.inventory.guests import Guests, KnownGuest
from virtbackup_async.errors import ConfigError, NotFoundError
from virtbackup_async.model.guest import Guest
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
        guests: the guests that have backups in the target; None if they are told by name alone.
    """

    group: str
    target: StorageLocation
    domains: Collection[str]
    backups: Mapping[str, str]
    wants: Callable[[str], bool]
    guests: Guests | None = None

    def guests_of(self, domain: str, backup: str | None = None) -> Sequence[KnownGuest | None]:
        """Return the guests of a domain's name; of the backup of a name, those that have it."""
        found = self.guests.of_name(domain) if self.guests is not None else ()
        if backup is not None and backup in self.backups:
            found = [one for one in found if one.has(backup)]
        return found or (None,)


class Meaning(Struct, frozen=True):
    """The backup that a text means: the guest's backup in the place, of the date or the newest.

    ``word`` is the part of the text that means the guest.
    """

    place: Place
    domain: str
    date: str | None = None
    guest: KnownGuest | None = None
    word: str = ""

    def is_whole(self, text: str) -> bool:
        """Return whether a text is only the domain's name, with or without its group."""
        word = self.word or self.domain
        return self.date is None and text in {word, f"{self.place.group}/{word}"}

    def __str__(self) -> str:
        """Return a text that means only this backup."""
        word = self.domain
        if self.guest is not None and self.place.guests is not None:
            word = self.place.guests.word(self.guest)
        text = f"{self.place.group}/{word}@{self.date or LATEST}"
        if self.date is None or len(meanings(text, [self.place])) == 1:
            return text
        return f"{self.place.group}/{word} --date {self.date}"


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
    return _chosen(text, places, now, _meanings_in, is_dated=is_dated) or _chosen(
        text, places, now, _meanings_of_guests, is_dated=is_dated
    )


def _chosen(
    text: str,
    places: Sequence[Place],
    now: datetime | None,
    read: Callable[[Place, str, datetime | None], Iterator[tuple[Meaning, bool]]],
    *,
    is_dated: bool,
) -> list[Meaning]:
    everywhere = [one for place in places for one in read(place, text, now)]
    if not is_dated:
        everywhere = [(one, is_wanted) for one, is_wanted in everywhere if one.is_whole(text)]
    wanted = [one for one, is_wanted in everywhere if is_wanted]
    chosen = wanted or [one for one, _ in everywhere]
    unique: dict[tuple[StorageLocation, str, str | None, Guest | None], Meaning] = {}
    for one in chosen:
        guest = None if one.guest is None else one.guest.guest
        unique.setdefault((one.place.target, one.domain, one.date, guest), one)
    return list(unique.values())


def _meanings_in(place: Place, text: str, now: datetime | None) -> Iterator[tuple[Meaning, bool]]:
    """Yield each meaning in one place, and whether the place is the right one for it."""
    for reading in readings(text, [place.group]):
        domain, date = reading.domain, reading.date
        is_known = domain in place.domains
        if is_known and (date is None or is_date(date, now) or place.backups.get(date) == domain):
            is_wanted = reading.group is not None or place.wants(domain)
            is_newest = date is None or is_latest(date)
            for guest in place.guests_of(domain, date):
                yield Meaning(place, domain, None if is_newest else date, guest), is_wanted
        if date is None and domain in place.backups:
            of = place.backups[domain]
            is_wanted = reading.group is not None or place.wants(of)
            for guest in place.guests_of(of, domain):
                yield Meaning(place, of, domain, guest), is_wanted


def _meanings_of_guests(
    place: Place, text: str, now: datetime | None
) -> Iterator[tuple[Meaning, bool]]:
    """Yield each meaning of a text that names a host, or a UUID; as ``_meanings_in``."""
    for reading in readings(text, [place.group]) if place.guests is not None else ():
        date = reading.date
        for guest in place.guests.called(reading.domain) if place.guests is not None else ():
            if date is None or is_date(date, now) or guest.has(date):
                is_newest = date is None or is_latest(date)
                is_wanted = reading.group is not None or place.wants(guest.name)
                found = Meaning(
                    place, guest.name, None if is_newest else date, guest, reading.domain
                )
                yield found, is_wanted


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
    words = {p.guests.word(one) for p in places if p.guests for one in p.guests.all}
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
        of_groups = (f"{p.group}/{d}" for p in places for d in p.domains)
        near = did_you_mean(meant.domain, (*of_groups, *words))
    return NotFoundError(f"no backup of {meant.domain}{where}{near}")
