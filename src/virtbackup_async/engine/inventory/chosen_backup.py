"""Finds the backup that an admin means: by its name (see ``backup_names``), or domain and date.

A damaged backup is never skipped silently. If the backup that is meant cannot be read, no older one
replaces it.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from math import inf

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.catalog import definition_file
from virtbackup_async.catalog.amendment import amend_definition
from virtbackup_async.catalog.checksum import TRUST_OPTION
from virtbackup_async.catalog.raw_json import read_bytes
from virtbackup_async.catalog.scanning import FoundBackup, Problem, Scan
from virtbackup_async.config.schema import Config
from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.engine.heads.memory import compare, warning_of
from virtbackup_async.engine.inventory.another_backup import advise
from virtbackup_async.engine.inventory.dates import (
    CLOCK_SLACK_S,
    at_date,
    before_date,
    date_of_name,
    is_latest,
    local_time,
    nearest,
    pasteable,
    time_of,
)
from virtbackup_async.engine.inventory.guests import Guests, KnownGuest
from virtbackup_async.engine.inventory.lacking import find_lacks
from virtbackup_async.engine.inventory.locate import Located, is_definition, locate
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import DefinitionError, NotFoundError, StorageError
from virtbackup_async.events import PinChanged, Warned
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile

_NEAREST_SHOWN = 3


class _Candidate(Struct, frozen=True):
    """A backup that might be meant; ``found``, or a ``problem`` if it cannot be read."""

    date: int
    name: str
    found: FoundBackup | None = None
    problem: Problem | None = None

    @property
    def path(self) -> TargetFile:
        """Its definition."""
        either = self.found or self.problem
        assert either is not None  # noqa: S101 -- it is one of both
        return either.path


class _Backups(Struct, frozen=True):
    """All backups of a guest, oldest first; ``whole`` are the readable ones.

    ``unread`` is why the guest's own directory cannot be read: it might contain other backups.
    ``instead`` is the advice for a broken backup.
    """

    domain: str
    candidates: Sequence[_Candidate]
    whole: Sequence[FoundBackup]
    instead: str
    unread: str | None = None


async def find_backup(
    config: Config, group_name: str | None, domain: str, date: str | None
) -> FoundBackup:
    """Return the newest backup of a domain in a group's target, or the one of a date.

    Args:
        config: the configuration.
        group_name: the group whose target to search; None for all.
        domain: its exact name, even if it is no longer in the group; or a name that
            ``backup_names`` understands.
        date: a date as in ``dates``, or the backup's name; None for the newest.

    Raises:
        NotFoundError: no such group, no backup of the domain, or none of that date.
        ConfigError: the date cannot be understood, the group has no target, or the name can mean
            several backups.
        DefinitionError: the backup that is meant exists, and is damaged.
        StorageError: the target, or the domain's directory in it, cannot be read.
    """
    located = await locate(config, group_name, domain, date)
    return _whole_at(_backups_of(config, located), located.date)


def _whole_at(backups: _Backups, date: str | None, now: datetime | None = None) -> FoundBackup:
    return _whole(backups, _newest_or_at(backups, date, now) or _refuse(backups, date, now))


class FindRequest(Struct, frozen=True):
    """The backup to read.

    Attributes:
        group: the group whose target to search; None for all.
        domain: its exact name, or a name that ``backup_names`` understands.
        date: as for :func:`find_backup`.
        disks: the devs that are wanted; none for all.
        trusted: whether to accept a definition whose checksum does not match.
    """

    group: str | None
    domain: str
    date: str | None = None
    disks: Sequence[str] = ()
    trusted: bool = False


async def find_backup_to_read(runtime: Runtime, request: FindRequest) -> FoundBackup:
    """Return a backup as :func:`find_backup` does, or the last one before the date.

    Warns of anything that the admin might not expect.

    Raises:
        NotFoundError: no such group, no backup of the domain, all are later, or the backup lacks
            one of the wanted disks.
        ConfigError: as for :func:`find_backup`.
        DefinitionError: the backup that is meant exists, and is damaged, or another than this host
            has seen.
        StorageError: as for :func:`find_backup`.
    """
    emit, now = runtime.emit, runtime.now()
    located = await locate(runtime.config, request.group, request.domain, request.date, now)
    domain, date = located.domain, located.date
    backups = _backups_of(runtime.config, located)
    chosen = _newest_or_at(backups, date, now)
    if chosen is None:
        chosen = (date and before_date(backups.candidates, date, now)) or _refuse(
            backups, date, now
        )
        moment = pasteable(time_of(chosen.date))
        if chosen.found is not None:
            message = f"no backup at {date}: taking the last one before it, of {moment}"
            emit(Warned(message, domain))
    if request.trusted and chosen.problem is not None:
        found = await to_thread.run_sync(_read_trusted, chosen.problem.path)
        emit(Warned(f"{found.path}: read as it is, though its checksum is another", domain))
    else:
        found = _whole(backups, chosen)
    await _compare_with_memory(runtime, located, found, trusted=request.trusted)
    for warning in _warnings(backups, found, request.disks, None if date else now):
        emit(Warned(warning, domain))
    return found


async def _compare_with_memory(
    runtime: Runtime, located: Located, found: FoundBackup, *, trusted: bool
) -> None:
    """Warn of what this host has seen otherwise in the domain's backups.

    Raises:
        DefinitionError: the backup's own definition is another one; unless it is trusted.
    """
    catalog = runtime.host.catalog(located.target)
    compared = await compare(
        runtime.host, catalog, located.scan, lambda domain: domain == located.domain
    )
    for contradiction in compared.contradictions:
        runtime.emit(warning_of(contradiction))
    if compared.is_exchanged(found) and not trusted:
        raise DefinitionError(
            f"{found.path}: this host has seen another definition of that name",
            hint=f"Restore another backup, or this one into files of your own with {TRUST_OPTION}.",
        )


class NamedBackup(Struct, frozen=True):
    """A backup that an admin named, complete or broken.

    Attributes:
        group: the group whose target it is in.
        target: the group's target.
        scan: everything in the target.
        domain: the domain's exact name.
        name: the backup's own name.
        path: its definition.
        found: the complete backup; None for a broken one.
        problem: why it is broken.
        has_date: whether the admin named a date or a backup, and not only the domain.
        guest: the guest that it is of, with its other backups.
        known: all guests of the target.
    """

    group: str
    target: StorageLocation
    scan: Scan
    domain: str
    name: str
    path: TargetFile
    found: FoundBackup | None
    problem: Problem | None
    has_date: bool
    guest: KnownGuest
    known: Guests

    @property
    def word(self) -> str:
        """A text that means only this guest in the target."""
        return self.known.word(self.guest)


async def find_named(
    runtime: Runtime, group: str | None, name: str, date: str | None = None
) -> NamedBackup:
    """Return the backup that a name means, even a broken one.

    Args:
        runtime: has the configuration and the clock.
        group: the group whose target to search; None for all.
        name: a name as in ``backup_names``.
        date: a date, if the name has none; None for the newest.

    Raises:
        NotFoundError, ConfigError, StorageError: as for :func:`find_backup`.
    """
    now = runtime.now()
    located = await locate(runtime.config, group, name, date, now)
    backups = _backups_of(runtime.config, located)
    chosen = _newest_or_at(backups, located.date, now) or _refuse(backups, located.date, now)
    return NamedBackup(
        located.group,
        located.target,
        located.scan,
        located.domain,
        chosen.name,
        chosen.path,
        chosen.found,
        chosen.problem,
        has_date=located.date is not None or is_latest(name.rpartition("@")[2]),
        guest=located.guest,
        known=located.guests,
    )


class PinRequest(Struct, frozen=True):
    """The backup to pin, named as for :func:`find_backup`; to unpin if ``pinned`` is false."""

    group: str | None
    domain: str
    date: str | None = None
    pinned: bool = True


async def set_pinned(runtime: Runtime, request: PinRequest) -> PinChanged:
    """Write the pin into the backup's definition, so that ``clean`` keeps it; or remove the pin.

    Further errors are those of :func:`find_backup`.

    Raises:
        NotFoundError: there is no such backup, or it was removed just now.
        StorageError: the definition cannot be written.
    """
    now = runtime.now()
    located = await locate(runtime.config, request.group, request.domain, request.date, now)
    found = _whole_at(_backups_of(runtime.config, located), located.date, now)
    await amend_definition(found.path, {"pinned": request.pinned})
    changed = PinChanged(
        located.group,
        located.domain,
        found.definition.name,
        str(found.path),
        request.pinned,
        found.definition.domain_uuid,
        found.definition.host,
    )
    runtime.emit(changed)
    return changed


def _newest_or_at(backups: _Backups, date: str | None, now: datetime | None) -> _Candidate | None:
    found = None if date is None else at_date(backups.candidates, date, now)
    if found is None and backups.unread is not None:
        raise StorageError(f"cannot read {backups.unread}")
    return backups.candidates[-1] if date is None else found


def _refuse(backups: _Backups, date: str | None, now: datetime | None) -> _Candidate:
    near = [c for c in nearest(backups.candidates, date or "", _NEAREST_SHOWN, now) if c.found]
    dates = ", ".join(pasteable(time_of(candidate.date)) for candidate in near)
    hint = f"The nearest are of {dates}." if near else None
    raise NotFoundError(f"no backup of {backups.domain} at {date}", hint=hint)


def _whole(backups: _Backups, chosen: _Candidate) -> FoundBackup:
    if chosen.found is None:
        message = chosen.problem.message if chosen.problem else ""
        raise DefinitionError(message, hint=backups.instead)
    return chosen.found


def _warnings(
    backups: _Backups, found: FoundBackup, disks: Sequence[str], newest_at: datetime | None
) -> Iterator[str]:
    definition = found.definition
    name = definition.name
    good = [other for other in backups.whole if not other.definition.is_damaged]
    if definition.verified is not None and definition.is_damaged:
        others = f"the newest good one is {good[-1].definition.name}" if good else "NONE IS GOOD"
        when = time_of(definition.verified.date)
        yield f"verify found {name} damaged, {when}: {definition.verified.error}; {others}"
    now_s = newest_at.timestamp() if newest_at else inf
    if definition.date > now_s + CLOCK_SLACK_S:
        past = [other for other in good if other.definition.date <= now_s]
        others = f"; before now the last is {past[-1].definition.name}" if past else ""
        yield f"{name}, the newest, is dated in the future: {local_time(definition)}{others}"
    for lack in find_lacks(definition, backups.whole):
        if lack.what in disks:
            hint = f"{lack.older.definition.name} has it." if lack.older else None
            raise NotFoundError(f"no disk {lack.what} in backup {name}: {lack.reason}", hint=hint)
        if not disks:
            yield f"backup {name}: {lack}"


def _backups_of(config: Config, located: Located) -> _Backups:
    """Return a domain's backups, at least one if its directory can be read.

    Raises:
        NotFoundError: there is none.
    """
    guest, scan = located.guest, located.scan
    candidates = [
        _Candidate(found.definition.date, found.definition.name, found=found)
        for found in guest.backups
    ]
    unread = None
    for problem in guest.problems:
        if problem.path.parent == TargetFile(problem.path.target):
            unread = problem.message
        date = date_of_name(problem.path.name)
        if date is not None and is_definition(problem):
            candidates.append(_Candidate(date, problem.path.stem, problem=problem))
    if not candidates and unread is None:
        names = {found.definition.domain_name for found in scan.complete}
        meant = did_you_mean(guest.name, names)
        raise NotFoundError(f"no backup of {guest.name} in {located.target}{meant}")
    ordered = sorted(candidates, key=lambda candidate: (candidate.date, candidate.name))
    word = located.guests.word(guest)
    instead = advise(config, located.group, word, guest.backups)
    return _Backups(word, ordered, guest.backups, instead, unread)


def _read_trusted(path: TargetFile) -> FoundBackup:
    """Read a definition whose checksum does not match. Blocks.

    Raises:
        DefinitionError: it has other problems too.
    """
    try:
        return FoundBackup(definition_file.loads(read_bytes(path), path, trusted=True), path)
    except OSError as error:
        raise DefinitionError(f"{error.strerror}, {TRUST_OPTION} or not", path=path) from error
