"""The ``accept`` command: take targets as they are now for what this host has seen in them."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from virtbackup_async.catalog.scanning import Scan
from virtbackup_async.config.patterns import pattern_of
from virtbackup_async.engine.heads.comparison import guests_in
from virtbackup_async.engine.heads.memory import Comparison, accept, compare
from virtbackup_async.engine.inventory.group_backups import (
    GroupBackups,
    choose_backups,
    scan_or_error,
    split_words,
)
from virtbackup_async.engine.plan import groups_with_target, target_of
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import StorageError
from virtbackup_async.events import TargetAccepted
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.storage_location import StorageLocation


class AcceptRequest(Struct, frozen=True):
    """What to accept.

    Attributes:
        words: groups, and single domains of groups.
        dry_run: only say what would be accepted.
    """

    words: Sequence[str]
    dry_run: bool = False


async def run_accept(runtime: Runtime, request: AcceptRequest) -> tuple[TargetAccepted, ...]:
    """Accept the domains' backups as they are; emit and return an event for each domain.

    Raises:
        NotFoundError: a named group does not exist, or a named domain is unknown.
        ConfigError: a named group has no target, or a pattern is invalid.
        StorageError: a target cannot be read, or the memory cannot be written.
    """
    runtime, recording = runtime.recording(TargetAccepted)
    group_names, named = split_words(runtime.config, request.words)
    known = await _remembered_domains(runtime, group_names)
    chosen = await choose_backups(
        runtime.config, group_names, tuple(map(pattern_of, named)), known_domains=known
    )
    for one in chosen:
        if one.error is not None:
            raise one.error
    done: set[tuple[StorageLocation, Guest]] = set()
    for one in chosen:
        if one.scan is not None:
            await _accept(runtime, one, one.scan, done, dry_run=request.dry_run)
    return recording.of(TargetAccepted)


async def _remembered_domains(runtime: Runtime, group_names: Sequence[str]) -> list[str]:
    """Return the domains that this host remembers: all backups of one may be gone."""
    known: list[str] = []
    groups = groups_with_target(runtime.config, group_names)
    for target in dict.fromkeys(map(target_of, groups)):
        scan = await scan_or_error(runtime.config, target)
        if not isinstance(scan, StorageError):
            compared = await compare(runtime.host, runtime.host.catalog(target), scan, _any)
            known += [guest.name for guest in _remembered(compared)]
    return known


async def _accept(
    runtime: Runtime,
    chosen: GroupBackups,
    scan: Scan,
    done: set[tuple[StorageLocation, Guest]],
    *,
    dry_run: bool,
) -> None:
    catalog = runtime.host.catalog(chosen.target)
    compared = await compare(runtime.host, catalog, scan, chosen.shows)
    found = {*guests_in(scan), *_remembered(compared)}
    guests = [
        guest
        for guest in sorted(found, key=lambda one: (one.name, one.uuid or ""))
        if chosen.shows(guest.name) and (chosen.target, guest) not in done
    ]
    done.update((chosen.target, guest) for guest in guests)
    accepted = await accept(runtime.host, catalog, scan, guests, dry_run=dry_run)
    for guest, newest in accepted:
        of_it = [one for one in compared.of(guest.name) if one.uuid == guest.uuid]
        runtime.emit(
            TargetAccepted(
                group=chosen.group,
                domain=guest.name,
                target=str(chosen.target),
                contradictions=tuple(one.message for one in of_it),
                backup=newest.name if newest is not None else None,
                sequence=newest.sequence if newest is not None else None,
                definition_hash=newest.hash if newest is not None else None,
                uuid=guest.uuid,
                dry_run=dry_run,
            )
        )


def _remembered(compared: Comparison) -> Iterable[Guest]:
    domains = compared.remembered.domains if compared.remembered else ()
    return [one.guest for one in domains]


def _any(_domain: str) -> bool:
    return True
