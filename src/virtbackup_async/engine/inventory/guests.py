"""The guests of a target: whose backups are together, and how each guest is named. Pure.

Many hosts may share a target, and have guests of one name. A name that people type means::

    web          each guest of that name
    HOST/web     the guest of that name whose newest backup HOST made; else one that HOST ever made
    UUID         the guest with that UUID, or the backups with it

A guest belongs to the host of its newest backup. One that migrates takes its UUID along, and with
it all its older backups. In a plain directory, which is virt-backup's, a name means one guest.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.catalog.scanning import FoundBackup, Problem, Scan
from virtbackup_async.model.guest import Guest, guest_of
from virtbackup_async.model.names import domain_directory, guest_directories
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.model.uuids import canonical_uuid


class KnownGuest(Struct, frozen=True):
    """A guest that a target has backups of.

    Attributes:
        guest: its name, and its UUID; without one, all backups of the name are meant.
        backups: the complete ones, oldest first.
        problems: files that should be backups of it, and are not.
    """

    guest: Guest
    backups: tuple[FoundBackup, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def name(self) -> str:
        """The domain's name."""
        return self.guest.name

    @property
    def uuid(self) -> str | None:
        """The domain's UUID, of its newest backup where a name has several; None if unknown."""
        if self.guest.uuid is not None or not self.backups:
            return self.guest.uuid
        return guest_of(self.backups[-1].definition).uuid

    def has(self, backup: str) -> bool:
        """Return whether it has a backup of that name, complete or not."""
        names = (found.definition.name for found in self.backups)
        return backup in names or any(one.path.stem == backup for one in self.problems)

    @property
    def host(self) -> str | None:
        """The host that it belongs to: that of its newest backup; None if that does not say it."""
        return self.backups[-1].definition.host if self.backups else None

    @property
    def hosts(self) -> frozenset[str]:
        """All hosts that made backups of it."""
        hosts = {found.definition.host for found in self.backups}
        return frozenset(host for host in hosts if host is not None)


class Guests:
    """All guests of a target, by name.

    Attributes:
        all: sorted by name, host and UUID.
    """

    def __init__(self, scan: Scan) -> None:
        self.all = tuple(sorted(_with_problems(_sorted_out(scan), scan.problems), key=_order))
        self._by_name: dict[str, list[KnownGuest]] = {}
        for one in self.all:
            self._by_name.setdefault(one.name, []).append(one)

    @cached_property
    def _by_path(self) -> Mapping[TargetFile, KnownGuest]:
        return {found.path: one for one in self.all for found in one.backups}

    def of(self, found: FoundBackup) -> KnownGuest:
        """Return the guest of a complete backup of the same scan."""
        return self._by_path[found.path]

    def find(self, path: TargetFile) -> KnownGuest | None:
        """Return the guest of the definition at a path; None if there is no such backup."""
        return self._by_path.get(path)

    def of_name(self, name: str) -> Sequence[KnownGuest]:
        """Return all guests of a name."""
        return self._by_name.get(name, ())

    def called(self, text: str) -> Sequence[KnownGuest]:
        """Return the guests that a text means as ``HOST/DOMAIN``, or as a UUID.

        A text that is a domain's name means nothing else.
        """
        if text in self._by_name:
            return ()
        return self._of_host(text) or self._of_uuid(canonical_uuid(text))

    def _of_host(self, text: str) -> Sequence[KnownGuest]:
        # A domain's name, and a host's, can contain a slash.
        named = [one for one in self.all if text.endswith(f"/{one.name}")]
        owned = [one for one in named if text == f"{one.host}/{one.name}"]
        return owned or [one for one in named if text.removesuffix(f"/{one.name}") in one.hosts]

    def _of_uuid(self, uuid: str | None) -> Sequence[KnownGuest]:
        if uuid is None:
            return ()
        found = [one for one in self.all if one.guest.uuid == uuid]
        for one in self.all if not found else ():
            backups = [each for each in one.backups if guest_of(each.definition).uuid == uuid]
            if backups:
                found.append(replace(one, backups=tuple(backups)))
        return found

    def word(self, guest: KnownGuest) -> str:
        """Return the shortest text that means only this guest."""
        if len(self.of_name(guest.name)) <= 1:
            return guest.name
        by_host = f"{guest.host}/{guest.name}"
        if guest.host is not None and list(self.called(by_host)) == [guest]:
            return by_host
        return guest.guest.uuid or guest.name


def _order(one: KnownGuest) -> tuple[str, str, str]:
    return one.name, one.host or "", one.guest.uuid or ""


def _sorted_out(scan: Scan) -> list[KnownGuest]:
    by_name: dict[str, list[FoundBackup]] = {}
    for found in scan.complete:
        by_name.setdefault(found.definition.domain_name, []).append(found)
    return [guest for name, backups in by_name.items() for guest in _of_one_name(name, backups)]


def _of_one_name(name: str, backups: Sequence[FoundBackup]) -> list[KnownGuest]:
    target = backups[0].path.target
    directory = domain_directory(target, name)
    if target.plain_directory is not None and all(one.path.parent == directory for one in backups):
        return [KnownGuest(Guest(name), tuple(backups))]
    by_uuid: dict[str | None, list[FoundBackup]] = {}
    for found in backups:
        by_uuid.setdefault(guest_of(found.definition).uuid, []).append(found)
    if None in by_uuid and len(by_uuid) > 1:
        # virt-backup's backups say no UUID. Where only one guest had the name, they are its own.
        known = [uuid for uuid in by_uuid if uuid is not None]
        if len(known) == 1:
            return [KnownGuest(Guest(name, known[0]), tuple(backups))]
    return [KnownGuest(Guest(name, uuid), tuple(of)) for uuid, of in by_uuid.items()]


def _with_problems(guests: list[KnownGuest], problems: Iterable[Problem]) -> list[KnownGuest]:
    """Add the problems to the guests; those of no known guest are of guests without backups.

    A problem in a directory of several guests is one of each of them that has backups there.
    """
    places: dict[str, list[int]] = {}
    possible: dict[str, list[int]] = {}
    for number, one in enumerate(guests):
        for place in dict.fromkeys(found.path.parent.stored_name for found in one.backups):
            places.setdefault(place, []).append(number)
        for directory in guest_directories(one.backups[0].path.target, one.guest):
            possible.setdefault(directory.stored_name, []).append(number)
    places = possible | places
    by_guest: dict[int, list[Problem]] = {}
    others: dict[Guest, list[Problem]] = {}
    for problem in problems:
        place = problem.path.stored_name.partition("/")[0]
        for number in places.get(place, ()):
            by_guest.setdefault(number, []).append(problem)
        if place not in places:
            others.setdefault(Guest(problem.domain, problem.uuid), []).append(problem)
    return [
        *(
            replace(one, problems=tuple(by_guest.get(number, ())))
            for number, one in enumerate(guests)
        ),
        *(KnownGuest(guest, (), tuple(found)) for guest, found in others.items()),
    ]
