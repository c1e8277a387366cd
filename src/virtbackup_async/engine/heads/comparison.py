"""Compares the definitions in a target with each other, and with what this host remembers. Pure.

What legitimate work does is no contradiction: ``clean`` removes older definitions, other hosts and
keepers too; a guest that migrated is continued by another host; a crash, or a disk of the host that
was restored, leaves a memory that is older than the target. What this host itself removes, it
forgets. So what counts is that the newest definition that it remembers is there, or a newer one
that continues from it; that no definition has another hash than it had; and that of two definitions
with subsequent numbers the later one names the earlier one.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.catalog.heads import SEEN_MAX
from virtbackup_async.catalog.scanning import Scan
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.heads import (
    EXCHANGED,
    FORKED,
    ROLLED_BACK,
    RememberedDomain,
    SeenDefinition,
    head_of,
)
from virtbackup_async.model.target_file import TargetFile

_SHOWN: Final = 3


class Contradiction(Struct, frozen=True):
    """Something in a target that legitimate work does not explain.

    Attributes:
        code: ``ROLLED_BACK``, ``EXCHANGED`` or ``FORKED``.
        message: one line, without the domain.
        advice: what to do, a sentence.
        backup: the name of the definition that is missing, exchanged, or does not fit.
    """

    code: str
    domain: str
    uuid: str | None
    message: str
    advice: str
    backup: str

    @property
    def line(self) -> str:
        """Message and advice in one line."""
        return f"{self.message}. {self.advice}"


class ListedDomain(Struct, frozen=True):
    """One domain in a target as it is now.

    Attributes:
        target: the target, for people.
        definitions: those with a sequence number, sorted by it.
        names: of all its backups, also of those whose definition cannot be read.
        hashes: by name, of all definitions of that name of domain.
        is_unread: whether its directory cannot be read.
    """

    target: str
    domain: str
    uuid: str | None
    definitions: tuple[Definition, ...]
    names: frozenset[str]
    hashes: dict[str, str | None]
    is_unread: bool = False

    @property
    def guest(self) -> Guest:
        """The domain."""
        return Guest(self.domain, self.uuid)

    @property
    def newest(self) -> Definition | None:
        """The one with the highest number."""
        return self.definitions[-1] if self.definitions else None


def listed_domain(scan: Scan, directories: Sequence[TargetFile], guest: Guest) -> ListedDomain:
    """Return what a scan found of a domain.

    Args:
        scan: of the target, or of the domain's directories.
        directories: that may hold the domain's backups.
        guest: the domain.
    """
    domain, uuid = guest.name, guest.uuid
    # Two hosts may have made backups of one name in one second, of two guests of one name.
    there = (one for one in (*scan.complete, *scan.removed) if one.path.parent in directories)
    found = [one.definition for one in there if one.definition.domain_name == domain]
    problems = [one for one in scan.problems if {one.path, one.path.parent} & {*directories}]
    of_domain = [one for one in found if one.sequence is not None and one.domain_uuid == uuid]
    unread = {one.path.name.partition(".json")[0] for one in problems}
    return ListedDomain(
        str(directories[-1].target),
        domain,
        uuid,
        tuple(sorted(of_domain, key=sequence_of)),
        frozenset({one.name for one in found} | unread),
        {one.name: one.hash for one in found},
        is_unread=any(one.path in directories for one in problems),
    )


def guests_in(scan: Scan) -> set[Guest]:
    """Return the domains whose definitions have sequence numbers."""
    found = (one.definition for one in (*scan.complete, *scan.removed))
    return {Guest(one.domain_name, one.domain_uuid) for one in found if one.sequence is not None}


def newest_head(definitions: Iterable[Definition]) -> str | None:
    """Return the highest number of the definitions, with its hash; None if none has a number."""
    numbered = [one for one in definitions if one.sequence is not None]
    newest = max(numbered, key=sequence_of, default=None)
    return head_of(sequence_of(newest), newest.hash or "") if newest is not None else None


def sequence_of(definition: Definition) -> int:
    """Return the number of a definition; 0 for none."""
    return definition.sequence or 0


def contradictions(
    listed: ListedDomain, remembered: RememberedDomain | None
) -> tuple[Contradiction, ...]:
    """Return what does not fit, the gravest first."""
    if listed.is_unread:
        return ()  # the scan reports that, and it explains everything
    found = [*_of_chain(listed, remembered.accepted if remembered else 0)]
    if remembered is not None:
        found = [
            *_rolled_back(listed, remembered),
            *_exchanged(listed, remembered),
            *_continued_from_older(listed, remembered),
            *found,
        ]
    return tuple(_some_of(list(dict.fromkeys(found))))


def _some_of(found: list[Contradiction]) -> Iterator[Contradiction]:
    """Yield the first of each kind, and how many more there are: of 300 exchanged, 3 say enough."""
    for code in dict.fromkeys(one.code for one in found):
        of_code = [one for one in found if one.code == code]
        yield from of_code[: _SHOWN - 1]
        for last in of_code[_SHOWN - 1 : _SHOWN]:
            more = len(of_code) - _SHOWN
            message = f"{last.message}; and so {more} more" if more else last.message
            yield replace(last, message=message)


def lost_newest(listed: ListedDomain, remembered: RememberedDomain) -> SeenDefinition | None:
    """Return the newest definition that this host has seen, if it is missing.

    None if there is one that was made after it: then it was removed by another host's retention.
    """
    newest = remembered.newest
    if newest is not None and newest.name not in listed.names:
        there = listed.newest
        if there is None or sequence_of(there) <= newest.sequence:
            return newest
    missing = remembered.missing
    return missing if missing is not None and missing.name not in listed.names else None


def updated(
    listed: ListedDomain, remembered: RememberedDomain | None, added: Definition | None = None
) -> RememberedDomain | None:
    """Return what to remember of a domain, now that its definitions were seen; None for nothing.

    What contradicts the memory does not replace it: only an admin can accept that.
    """
    there = [*listed.definitions, *([added] if added is not None else [])]
    seen = {one.name: one for one in _seen(there)}
    missing = None
    if remembered is not None:
        missing = remembered.missing if listed.is_unread else lost_newest(listed, remembered)
        kept = [one for one in remembered.seen if one.name in listed.names or listed.is_unread]
        seen |= {one.name: one for one in kept}
    if not seen and missing is None:
        return remembered
    return RememberedDomain(
        listed.domain,
        listed.uuid,
        max(
            *(one.sequence for one in seen.values()),
            remembered.sequence if remembered else 1,
            missing.sequence if missing else 1,
            1,
        ),
        tuple(sorted(seen.values(), key=lambda one: one.sequence))[-SEEN_MAX:],
        missing,
        remembered.accepted if remembered else 0,
    )


def accepted(listed: ListedDomain, remembered: RememberedDomain | None) -> RememberedDomain | None:
    """Return what to remember once an admin has accepted a domain as it is; None for nothing."""
    seen = tuple(_seen(listed.definitions))[-SEEN_MAX:]
    if not seen:
        return None
    newest = seen[-1].sequence
    highest = max(newest, remembered.sequence if remembered else 0)
    return RememberedDomain(listed.domain, listed.uuid, highest, seen, None, newest)


def without(remembered: RememberedDomain, name: str) -> RememberedDomain | None:
    """Return what to remember once this host removes a backup; None if that is nothing."""
    seen = tuple(one for one in remembered.seen if one.name != name)
    missing = remembered.missing
    if missing is not None and missing.name == name:
        missing = None
    return replace(remembered, seen=seen, missing=missing) if seen or missing else None


def _seen(definitions: Iterable[Definition]) -> Iterator[SeenDefinition]:
    for one in definitions:
        if one.sequence is not None and one.hash is not None:
            yield SeenDefinition(one.name, one.sequence, one.hash)


def _rolled_back(listed: ListedDomain, remembered: RememberedDomain) -> Iterator[Contradiction]:
    lost = lost_newest(listed, remembered)
    if lost is None:
        return
    there = listed.newest
    now = f"the newest is {_named(there)}" if there is not None else "none is there"
    message = (
        f"{listed.target} IS OLDER THAN IT WAS: this host has seen backup {lost.name} "
        f"({lost.head}) there, which is missing; {now}"
    )
    yield _contradiction(ROLLED_BACK, listed, message, lost.name)


def _exchanged(listed: ListedDomain, remembered: RememberedDomain) -> Iterator[Contradiction]:
    for one in remembered.seen:
        now = listed.hashes.get(one.name, one.hash)
        if now != one.hash:
            message = (
                f"{listed.target}: THE DEFINITION OF {one.name} IS ANOTHER than this host has "
                f"seen, {one.head}"
            )
            yield _contradiction(EXCHANGED, listed, message, one.name)


def _continued_from_older(
    listed: ListedDomain, remembered: RememberedDomain
) -> Iterator[Contradiction]:
    """Yield the definitions that another host based on an older state than this host has seen."""
    by_number = {one.sequence: one for one in remembered.seen}
    for later in listed.definitions:
        number = sequence_of(later)
        same, before = by_number.get(number), by_number.get(number - 1)
        is_other = same is not None and same.name != later.name
        is_other = is_other or (before is not None and later.previous != before.hash)
        if is_other and number > remembered.accepted:
            yield _forked(listed, later)


def _of_chain(listed: ListedDomain, accepted: int) -> Iterator[Contradiction]:
    by_number: dict[int, list[Definition]] = {}
    for one in listed.definitions:
        by_number.setdefault(sequence_of(one), []).append(one)
    for number, of_number in by_number.items():
        if number <= accepted:
            continue
        hashes = {one.hash for one in by_number.get(number - 1, ())}
        for one in of_number:
            if len(of_number) > 1 or (hashes and one.previous not in hashes):
                yield _forked(listed, one)


def _forked(listed: ListedDomain, later: Definition) -> Contradiction:
    message = (
        f"{listed.target}: the backup {_named(later)} DOES NOT FOLLOW from the one before it: "
        "one of the two was changed, or two hosts wrote at once"
    )
    return _contradiction(FORKED, listed, message, later.name)


def _named(definition: Definition) -> str:
    return f"{definition.name} ({head_of(sequence_of(definition), definition.hash or '')})"


def _contradiction(code: str, listed: ListedDomain, message: str, backup: str) -> Contradiction:
    words = shlex.join(["virtbackup", "accept", "--", listed.domain])
    advice = (
        "Find out who changed the target, and compare with older notifications; if you know why, "
        f"run `{words}`."
    )
    return Contradiction(code, listed.domain, listed.uuid, message, advice, backup)
