"""The survey: reads all targets once, and asks libvirt for its domains; changes nothing.

``report`` calls it, and so do ``status`` and ``check``, without what only a page shows: a
monitoring runs ``check`` every few minutes. That something cannot be read is a fact too: the survey
raises nothing for it.
"""

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.catalog.history import read_history
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.config.patterns import PatternKind
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.engine.clean.plan import CleanTarget, clean_targets, plan_clean
from virtbackup_async.engine.clean.stopped import jump_of
from virtbackup_async.engine.doctor.leftovers import check_notes
from virtbackup_async.engine.heads.comparison import newest_head
from virtbackup_async.engine.heads.memory import Comparison, compare
from virtbackup_async.engine.host_state import host_name
from virtbackup_async.engine.inventory.command_lines import words_around
from virtbackup_async.engine.inventory.freed import files_of, freed_together
from virtbackup_async.engine.inventory.group_backups import (
    GroupBackups,
    broken_backups,
    choose_backups,
)
from virtbackup_async.engine.inventory.guests import KnownGuest
from virtbackup_async.engine.inventory.recovery_key import missing_recovery_key
from virtbackup_async.engine.inventory.stats import measure_repository
from virtbackup_async.engine.inventory.unclaimed import unclaimed_backups
from virtbackup_async.engine.plan import target_of
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.survey.backups import backup_facts, broken_facts
from virtbackup_async.engine.survey.calendar import play
from virtbackup_async.engine.undo.find_domain import lock_name
from virtbackup_async.errors import CorruptError, HypervisorError, StorageError
from virtbackup_async.events import Level
from virtbackup_async.files.mounts import space_of
from virtbackup_async.model.backup import Pending
from virtbackup_async.model.facts import (
    Calendar,
    Contradicted,
    Facts,
    GuestFacts,
    JumpFacts,
    Leftover,
    RepositoryFacts,
    RunningBackup,
    TargetFacts,
)
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.lock_holder import LockHolder
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.repository import CHUNK_BYTES
from virtbackup_async.version import __version__


class _Retained(Struct, frozen=True):
    """What ``clean`` would remove now, and what it will remove when.

    Attributes:
        expired: the definitions of the backups that no rule keeps.
        going: the same backups, by their target.
    """

    expired: frozenset[TargetFile] = frozenset()
    going: Mapping[StorageLocation, Sequence[FoundBackup]] = {}
    calendars: tuple[Calendar, ...] = ()


class _Known(Struct, frozen=True):
    """libvirt's domains, or why it did not answer; neither if it was not asked."""

    domains: frozenset[str] | None
    error: str | None = None


async def survey(runtime: Runtime, *, for_page: bool = True) -> Facts:
    """Collect the facts about the groups' guests and targets.

    Args:
        runtime: the configuration and the connection to libvirt.
        for_page: also find out what ``clean`` would do now and later, and what the repositories
            hold; that plans the retention, and reads the index and the maps.

    Raises:
        ConfigError: the environment names no absolute path for the state directory.
    """
    config = runtime.config
    known = await _known_domains(runtime)
    names = [group.name for group in config.groups.values() if group.target]
    chosen = await choose_backups(config, names, ()) if names else []
    retained = _Retained()
    if for_page and not config.of_target:
        retained = await to_thread.run_sync(_retention, runtime, chosen)
    compared = {
        one.target: await compare(runtime.host, runtime.host.catalog(one.target), one.scan, _any)
        for one in _one_a_target(chosen)
        if one.scan is not None
    }
    guests = await to_thread.run_sync(
        lambda: [*_guests(config, chosen, known, retained.expired, compared)]
    )
    program, where = words_around(config)
    running, leftovers = await _unfinished(runtime, chosen, (*program, "clean", "-b"))
    return Facts(
        at=runtime.now().timestamp(),
        host=socket.gethostname(),
        version=__version__,
        config=config.where,
        of_target=config.of_target,
        program=program,
        where=where,
        groups=tuple((group.name, group.autostart) for group in config.groups.values()),
        guests=tuple(guests),
        targets=tuple(
            [
                await _target(config, one, chosen, retained if for_page else None)
                for one in _one_a_target(chosen)
            ]
        ),
        unclaimed=tuple(sorted(_unclaimed(config, known))),
        hypervisor_error=known.error,
        running=tuple(running),
        leftovers=tuple(leftovers),
        calendars=retained.calendars,
    )


async def _known_domains(runtime: Runtime) -> _Known:
    if runtime.config.of_target:
        return _Known(None)
    try:
        return _Known(frozenset(await runtime.hypervisor.domain_names()))
    except HypervisorError as error:
        return _Known(None, error.message)


def _unclaimed(config: Config, known: _Known) -> Iterator[str]:
    groups = config.groups.values()
    for domain in known.domains or ():
        if not any(group.includes(domain) for group in groups):
            yield domain


def _retention(runtime: Runtime, chosen: Sequence[GroupBackups]) -> _Retained:
    scans = {one.target: one.scan for one in chosen if one.scan is not None}
    readable = [one.group for one in chosen if one.scan is not None]
    try:
        targets = clean_targets(runtime.config, readable) if readable else []
    except StorageError:
        return _Retained()
    going: dict[StorageLocation, list[FoundBackup]] = {}
    for target in targets:
        place = target_of(target.groups[0])
        decisions = plan_clean(target, scans[place], runtime.now())
        going[place] = [decision.found for decision in decisions if not decision.keep]
    expired = frozenset(found.path for found in chain.from_iterable(going.values()))
    by_group = {group.name: target for target in targets for group in target.groups}
    return _Retained(expired, going, tuple(_calendars(runtime, chosen, by_group)))


def _guests(
    config: Config,
    chosen: Iterable[GroupBackups],
    known: _Known,
    expired: frozenset[TargetFile],
    compared: Mapping[StorageLocation, Comparison],
) -> Iterator[GuestFacts]:
    for one in chosen:
        group = config.groups[one.group]
        comparison = compared.get(one.target, Comparison())
        # Of a domain whose backups are all gone, only the memory knows.
        remembered = filter(one.shows, comparison.domains_in_question)
        wanted = {*_named(group), *filter(group.includes, known.domains or ()), *remembered}
        has_own = {guest.name for guest in one.guests if _owner_elsewhere(config, guest) is None}
        lacking = wanted - has_own
        absent = (KnownGuest(Guest(domain)) for domain in lacking)
        guests = sorted((*absent, *one.guests), key=lambda guest: guest.name)
        all_broken = {lost.definition: lost for lost in broken_backups(one)}
        for guest in guests:
            owner = _owner_elsewhere(config, guest)
            last = _newest_good(guest.backups)
            word = one.word(guest) if guest.backups else guest.name
            if owner is not None and word in lacking:
                word = f"{owner}/{word}"
            is_known = None if known.domains is None else guest.name in known.domains
            yield GuestFacts(
                group=group.name,
                domain=guest.name,
                target=str(one.target),
                max_age_s=None if config.of_target else group.max_age.total_seconds(),
                is_known=None if owner is not None else is_known,
                backups=tuple(
                    backup_facts(found, expires=found.path in expired, is_newest=found is last)
                    for found in guest.backups
                ),
                broken=broken_facts(
                    all_broken[str(problem.path)]
                    for problem in guest.problems
                    if str(problem.path) in all_broken
                ),
                jump=_jump(config, group.name, guest.backups),
                word="" if word == guest.name else word,
                hosts=_hosts_of_runs(config, one.target, guest),
                host=owner,
                uuid=guest.uuid,
                contradictions=tuple(
                    Contradicted(found.message, found.advice)
                    for found in comparison.of(guest.name)
                    if guest.uuid in {None, found.uuid} or found.uuid is None
                ),
                head=newest_head(found.definition for found in guest.backups),
            )


def _owner_elsewhere(config: Config, guest: KnownGuest) -> str | None:
    """Return the other host that a guest belongs to; None if it may be this one's.

    Of a target alone, no host is this one.
    """
    if not guest.backups or guest.backups[0].path.target.is_local:
        return None
    return None if config.of_target or guest.host == host_name() else guest.host


def _hosts_of_runs(config: Config, target: StorageLocation, guest: KnownGuest) -> frozenset[str]:
    """Return the hosts whose runs in a target's history were of a guest; none for all."""
    if target.is_local:
        return frozenset()
    is_own = not config.of_target and _owner_elsewhere(config, guest) is None
    return guest.hosts | ({host_name()} if is_own else set())


def _any(_domain: str) -> bool:
    return True


def _jump(config: Config, group: str, backups: Sequence[FoundBackup]) -> JumpFacts | None:
    found = jump_of(config, group, backups)
    if found is None:
        return None
    return JumpFacts(found.jump.found.definition.name, found.jump.reason, found.command)


def _newest_good(backups: Sequence[FoundBackup]) -> FoundBackup | None:
    good = (found for found in reversed(backups) if not found.definition.is_damaged)
    return next(good, None)


def _named(group: Group) -> Iterator[str]:
    """Yield the domains that a group names, whether they exist or not."""
    patterns = (entry.pattern for entry in group.hosts)
    for pattern in patterns:
        is_name = pattern.kind is PatternKind.NAME and not pattern.excludes
        if is_name and group.includes(pattern.value):
            yield pattern.value


def _one_a_target(chosen: Iterable[GroupBackups]) -> list[GroupBackups]:
    by_target: dict[StorageLocation, GroupBackups] = {}
    for one in chosen:
        by_target.setdefault(one.target, one)
    return list(by_target.values())


async def _target(
    config: Config,
    one: GroupBackups,
    chosen: Iterable[GroupBackups],
    retained: _Retained | None,
) -> TargetFacts:
    """Return the facts of a target; ``retained`` is None if it is not to be measured."""
    groups = tuple(other.group for other in chosen if other.target == one.target)
    if one.scan is None:
        return TargetFacts(str(one.target), groups, error=str(one.error))
    problems: list[str] = []
    history = repository = used = free = expired = None
    try:
        space = await space_of(one.target)
        if space is not None:
            used, free = space.used_bytes, space.free_bytes
    except (OSError, StorageError) as error:
        problems.append(f"the free space is not known: {error}")
    try:
        history = await read_history(one.target)
        if history.damaged:
            problems.append(f"{history.damaged} lines of the history cannot be read")
    except StorageError as error:
        problems.append(f"the history cannot be read: {error}")
    try:
        repository = await to_thread.run_sync(_repository, one) if retained else None
    except (CorruptError, StorageError) as error:
        problems.append(f"the repository cannot be measured: {error}")
    try:
        going = retained.going.get(one.target) if retained else None
        expired = await to_thread.run_sync(_freed, one.target, going) if going else None
    except (CorruptError, StorageError) as error:
        problems.append(f"it is not known what clean would free: {error}")
    left = await to_thread.run_sync(unclaimed_backups, config, one.target, one.scan)
    return TargetFacts(
        str(one.target),
        groups,
        used_bytes=used,
        free_bytes=free,
        repository=repository,
        expired_bytes=expired,
        history=history.runs if history else (),
        problems=tuple(problems),
        unclaimed=left.domains if left else (),
        recovery_lack=await to_thread.run_sync(missing_recovery_key, one.target),
    )


def _repository(one: GroupBackups) -> RepositoryFacts | None:
    totals = measure_repository(one.target)
    if totals is None:
        return None
    mapped = totals.mapped_chunks * CHUNK_BYTES
    return RepositoryFacts(mapped, totals.chunks * CHUNK_BYTES, totals.pack_bytes)


def _freed(target: StorageLocation, going: Sequence[FoundBackup]) -> int:
    return freed_together(target, files_of(going))


async def _unfinished(
    runtime: Runtime, chosen: Sequence[GroupBackups], command: tuple[str, ...]
) -> tuple[list[RunningBackup], list[Leftover]]:
    """Return the backups that are being made, and the leftovers with the command that removes them.

    Of a target alone, this host's notes say nothing.
    """
    running: list[RunningBackup] = []
    left: list[Leftover] = []
    for one in _one_a_target(chosen):
        for found in one.scan.pending if one.scan else ():
            pending = found.pending
            holder = await runtime.host.images.domain_holder(lock_name(pending))
            if holder is not None:
                running.append(_running(pending, holder, runtime.now().timestamp()))
            elif runtime.config.of_target:
                # Another host may be making it: only there is its lock.
                left.append(Leftover(pending.domain_name, f"backup {pending.name} is unfinished"))
            else:
                message = f"backup {pending.name} was killed"
                left.append(Leftover(pending.domain_name, message, command))
    if runtime.config.of_target:
        return running, left
    _, findings = await check_notes(runtime.host)
    left += [
        Leftover(finding.subject, finding.message, command)
        for finding in findings
        if finding.level is Level.PROBLEM
    ]
    return running, left


def _running(pending: Pending, holder: LockHolder, now: float) -> RunningBackup:
    since = pending.date if holder.since is None else holder.since
    # The clock may have been set back; nothing that runs began later than now.
    since = min(since, now)
    doing = holder.doing or "backup"
    return RunningBackup(pending.domain_name, pending.name, since, doing, holder.pid)


def _calendars(
    runtime: Runtime, chosen: Iterable[GroupBackups], targets: Mapping[str, CleanTarget]
) -> Iterator[Calendar]:
    """Yield the calendar of the guest with most backups, for each group."""
    for one in chosen:
        target = targets.get(one.group)
        own = [guest for guest in one.guests if guest.backups]
        own = [guest for guest in own if _owner_elsewhere(runtime.config, guest) is None]
        if target is None or not own:
            continue
        guest = max(own, key=lambda guest: len(guest.backups))
        kept = play(guest.backups, target.policies(guest.name), runtime.now())
        yield Calendar(one.group, one.word(guest), kept)
