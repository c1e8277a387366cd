"""Keeps this host's memory of the definitions in its targets, and compares it with them.

Who writes a definition does so inside of ``adding``, which gives it its number and the hash of the
one before; ``forget_definition`` is called before one is removed. ``compare`` changes nothing.

A failure here is a warning: the backup is made, and restored, without the memory as well.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.catalog import definition_file
from virtbackup_async.catalog.heads import RememberedTarget, TargetMemory
from virtbackup_async.catalog.scanning import FoundBackup, Scan
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.heads import comparison
from virtbackup_async.engine.heads.comparison import Contradiction, ListedDomain
from virtbackup_async.engine.host_state import Host
from virtbackup_async.errors import DefinitionError, VirtBackupError
from virtbackup_async.events import Emit, Warned
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.heads import SEQUENCE_MAX, RememberedDomain
from virtbackup_async.model.names import guest_of_directory
from virtbackup_async.model.storage_location import StorageLocation

UNREADABLE: Final = "heads_unreadable"
OF_ANOTHER: Final = "heads_of_another"
ANOTHER: Final = "has another repository than this host has seen there, or none"
ANOTHER_ADVICE: Final = (
    "If it is not one of several disks that you use in turn, find out who exchanged it."
)


class Adding(Struct):
    """A definition that is about to be written.

    Attributes:
        catalog: of the target.
        definition: with its number, and the hash of the one before it.
    """

    catalog: Catalog
    definition: Definition
    _emit: Emit
    _listed: ListedDomain
    _memory: TargetMemory | None
    _remembered: RememberedDomain | None

    async def remember(self) -> None:
        """Remember it, now that it is durable."""
        new = comparison.updated(self._listed, self._remembered, self.definition)
        if self._memory is None or new is None:
            return
        try:
            await to_thread.run_sync(self._memory.write, new)
        except VirtBackupError as error:
            self._emit(_not_remembered(self.definition.domain_name, error))


@asynccontextmanager
async def adding(
    host: Host, catalog: Catalog, emit: Emit, definition: Definition
) -> AsyncGenerator[Adding]:
    """Give a definition its number among those of its domain in the target.

    Warns if the target is older than it was, or was changed.

    Args:
        host: has the memory.
        catalog: of the target.
        emit: where warnings go.
        definition: the new one; it may have a number of another target, which does not count.
    """
    domain = definition.domain_name
    guest = Guest(domain, definition.domain_uuid)
    async with AsyncExitStack() as held:
        memory = remembered = None
        try:
            memory = await to_thread.run_sync(host.memory, catalog.target)
            await held.enter_async_context(memory.holding())
            remembered = await to_thread.run_sync(memory.read, guest)
        except VirtBackupError as error:
            emit(_not_remembered(domain, error))
            # What cannot be read must not be replaced by what says less.
            memory = None
        listed = await _listed(catalog, guest, emit)
        for found in comparison.contradictions(listed, remembered):
            emit(warning_of(found))
        linked = _linked(definition, listed, remembered)
        yield Adding(catalog, linked, emit, listed, memory, remembered)


async def _listed(catalog: Catalog, guest: Guest, emit: Emit) -> ListedDomain:
    scan = Scan((), (), ())
    try:
        scan = await catalog.scan_guest(guest)
    except VirtBackupError as error:
        # If it lasts, the definition cannot be written either.
        emit(Warned(f"the earlier definitions cannot be read: {error}", guest.name))
    return comparison.listed_domain(scan, catalog.directories(guest), guest)


def _linked(
    definition: Definition, listed: ListedDomain, remembered: RememberedDomain | None
) -> Definition:
    there = [(one.sequence or 0, one.hash) for one in listed.definitions]
    if remembered is not None:
        seen = [*remembered.seen, *([remembered.missing] if remembered.missing else [])]
        there += [(one.sequence, one.hash) for one in seen]
    highest, previous = max(there, key=lambda one: one[0], default=(0, None))
    if remembered is not None:
        highest = max(highest, remembered.sequence)
    # Only a forged number is that high.
    sequence = min(highest + 1, SEQUENCE_MAX)
    linked = replace(definition, sequence=sequence, previous=previous, hash=None)
    return replace(linked, hash=definition_file.hash_of(linked))


class Forgetting:
    """Forgets backups of one target that this host is about to remove."""

    def __init__(self, host: Host, target: StorageLocation, emit: Emit) -> None:
        self._host = host
        self._target = target
        self._emit = emit
        self._memory: TargetMemory | None = None

    async def forget(self, domain: str, name: str) -> None:
        """Forget a backup of a domain, before it is removed."""
        try:
            if self._memory is None:
                self._memory = await to_thread.run_sync(self._host.memory, self._target)
            memory = self._memory
            if await to_thread.run_sync(_remembers, memory, domain, name):
                async with memory.holding():
                    await to_thread.run_sync(_forget, memory, domain, name)
        except VirtBackupError as error:
            self._emit(_not_remembered(domain, error))


def _remembers(memory: TargetMemory, domain: str, name: str) -> bool:
    of_domain = (one for one in memory.read_all().domains if one.domain == domain)
    return any(comparison.without(one, name) != one for one in of_domain)


def _forget(memory: TargetMemory, domain: str, name: str) -> None:
    for one in memory.read_all().domains:
        if one.domain == domain:
            _put(memory, one.guest, comparison.without(one, name))


def _put(memory: TargetMemory, guest: Guest, new: RememberedDomain | None) -> None:
    if new is None:
        memory.remove(guest)
    else:
        memory.write(new)


class Comparison(Struct, frozen=True):
    """A target, compared with what this host remembers of it.

    Attributes:
        contradictions: the gravest of each domain first.
        remembered: what this host remembers; None if it cannot be read.
        domains: how many domains have definitions with numbers.
        problems: why the memory, or parts of it, cannot be read.
    """

    contradictions: tuple[Contradiction, ...] = ()
    remembered: RememberedTarget | None = None
    domains: int = 0
    problems: tuple[str, ...] = ()

    @property
    def is_of_another(self) -> bool:
        """Whether this host remembers another repository in this place, and nothing of this one."""
        found = self.remembered
        return found is not None and not found.domains and found.others > 0

    @property
    def domains_in_question(self) -> frozenset[str]:
        """The domains in which something contradicts."""
        return frozenset(one.domain for one in self.contradictions)

    def of(self, domain: str) -> tuple[Contradiction, ...]:
        """Return what contradicts in one domain."""
        return tuple(one for one in self.contradictions if one.domain == domain)

    def is_exchanged(self, found: FoundBackup) -> bool:
        """Return whether this host has seen another definition of that name."""
        definition = found.definition
        # Of another guest with this name, another backup can have this name, in another directory.
        uuid = guest_of_directory(found.path.parent.name).uuid
        domains = self.remembered.domains if self.remembered else ()
        of_domain = (
            one
            for one in domains
            if one.domain == definition.domain_name and uuid in {None, one.uuid}
        )
        seen = (one for domain in of_domain for one in domain.seen)
        return any(one.name == definition.name and one.hash != definition.hash for one in seen)


async def compare(
    host: Host, catalog: Catalog, scan: Scan, includes: Callable[[str], bool]
) -> Comparison:
    """Compare a target with what this host remembers of it.

    Args:
        host: has the memory.
        catalog: of the target.
        scan: everything in the target.
        includes: whether a domain matters.
    """
    return await to_thread.run_sync(_compare, host, catalog, scan, includes)


def _compare(
    host: Host, catalog: Catalog, scan: Scan, includes: Callable[[str], bool]
) -> Comparison:
    remembered = None
    problems: tuple[str, ...] = ()
    try:
        remembered = host.memory(catalog.target).read_all()
        problems = remembered.problems
    except VirtBackupError as error:
        problems = (str(error),)
    listed = comparison.guests_in(scan)
    known = {one.guest: one for one in remembered.domains} if remembered else {}
    found: list[Contradiction] = []
    for guest in sorted(listed | known.keys(), key=lambda one: (one.name, one.uuid or "")):
        if includes(guest.name):
            domain = comparison.listed_domain(scan, catalog.directories(guest), guest)
            found += comparison.contradictions(domain, known.get(guest))
    domains = sum(includes(guest.name) for guest in listed)
    return Comparison(tuple(found), remembered, domains, problems)


async def observe(
    host: Host, catalog: Catalog, scan: Scan, includes: Callable[[str], bool], emit: Emit
) -> None:
    """Warn of what contradicts in a target, and remember the definitions in it.

    The arguments are those of :func:`compare`.
    """
    compared = await compare(host, catalog, scan, includes)
    for found in compared.contradictions:
        emit(warning_of(found))
    for guest in filter(lambda one: includes(one.name), comparison.guests_in(scan)):
        listed = comparison.listed_domain(scan, catalog.directories(guest), guest)
        try:
            memory = await to_thread.run_sync(host.memory, catalog.target)
            before = await to_thread.run_sync(memory.read, guest)
            if comparison.updated(listed, before) != before:
                async with memory.holding():
                    await to_thread.run_sync(_observe, memory, guest, listed)
        except VirtBackupError as error:
            emit(_not_remembered(guest.name, error))
            return


def _observe(memory: TargetMemory, guest: Guest, listed: ListedDomain) -> None:
    new = comparison.updated(listed, memory.read(guest))
    if new is not None:
        memory.write(new)


async def accept(
    host: Host, catalog: Catalog, scan: Scan, guests: Iterable[Guest], *, dry_run: bool = False
) -> list[tuple[Guest, Definition | None]]:
    """Remember domains of a target as they are now; return the newest definition of each.

    A domain whose directory cannot be read stays as it was remembered. A dry run changes nothing.

    Raises:
        StorageError: the memory cannot be written.
        ConfigError, CorruptError: the target's repository cannot be read.
    """
    memory = await to_thread.run_sync(host.memory, catalog.target)
    everything = [
        comparison.listed_domain(scan, catalog.directories(guest), guest) for guest in guests
    ]
    listed = [one for one in everything if not one.is_unread]
    if not dry_run:
        async with memory.holding():
            for one in listed:
                await to_thread.run_sync(_accept, memory, one.guest, one)
    return [(one.guest, one.newest) for one in listed]


def _accept(memory: TargetMemory, guest: Guest, listed: ListedDomain) -> None:
    try:
        remembered = memory.read(guest)
    except DefinitionError:
        remembered = None  # a damaged memory is replaced
    _put(memory, guest, comparison.accepted(listed, remembered))


def warnings_of(compared: Comparison, target: StorageLocation) -> Iterator[Warned]:
    """Yield the warnings about a target."""
    if compared.is_of_another:
        yield Warned(f"{target}: {ANOTHER}. {ANOTHER_ADVICE}", code=OF_ANOTHER)
    yield from map(warning_of, compared.contradictions)


def warning_of(found: Contradiction) -> Warned:
    """Return the warning about a contradiction."""
    return Warned(found.line, found.domain, backup=found.backup, uuid=found.uuid, code=found.code)


def _not_remembered(domain: str, error: VirtBackupError) -> Warned:
    message = f"this host does not remember what is in the target: {error.message}"
    return Warned(message, domain, code=UNREADABLE)
