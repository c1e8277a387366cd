"""The ``forget`` command: remove the backups that were named.

All of them are looked at before the first is touched: if one may not go, none goes. A backup is
removed by the code that ``clean`` uses, so whatever dies in between, the next ``clean`` ends it.
"""

from collections.abc import Iterator, Sequence
from functools import partial

from msgspec import Struct

from virtbackup_async import events
from virtbackup_async.catalog.amendment import amend_definition
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.clean.broken import BrokenPackage, find_broken, remove_broken
from virtbackup_async.engine.clean.plan import why_unclear
from virtbackup_async.engine.clean.prune import prune
from virtbackup_async.engine.clean.removal import Forget, remove_backup, report_removal
from virtbackup_async.engine.clean.retention import RetentionDecision
from virtbackup_async.engine.clean.verdicts import verdict_on_broken, verdicts_on
from virtbackup_async.engine.heads.memory import Forgetting
from virtbackup_async.engine.inventory.chosen_backup import NamedBackup, find_named
from virtbackup_async.engine.inventory.freed import package_paths, would_free
from virtbackup_async.engine.locks import LockWait
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import ConfigError, DefinitionError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile

NAMED = "named"
PINNED = "pinned"
NEWEST = "the newest good backup"


class ForgetRequest(Struct, frozen=True):
    """Which backups to remove.

    Attributes:
        names: of the backups, each with a date: see ``backup_names``.
        group: says which target to look into; None for all.
        unpin: remove pinned ones too.
        allow_newest: remove also the newest good backup of a domain.
        dry_run: only say what would be removed, and what that frees.
        wait_s: how long to wait for a process that reads a backup.
    """

    names: Sequence[str]
    group: str | None = None
    unpin: bool = False
    allow_newest: bool = False
    dry_run: bool = False
    wait_s: float = 0


class ForgetRun(Struct, frozen=True):
    """What a run removed.

    Attributes:
        verdicts: one for each backup that was named.
        removed: the backups that are gone.
        not_removed: those that could not be removed.
        freed_bytes: the space that is free again, or would be.
    """

    verdicts: tuple[events.CleanVerdict, ...]
    removed: tuple[events.BackupRemoved, ...]
    not_removed: tuple[events.RemovalFailed, ...]
    freed_bytes: int


class _Wanted(Struct, frozen=True):
    """A backup that was named: complete if ``found``, else ``broken``; ``refused`` says why not."""

    named: NamedBackup
    found: FoundBackup | None
    broken: BrokenPackage | None
    refused: tuple[str, ...] = ()

    @property
    def path(self) -> TargetFile:
        return self.named.path

    @property
    def files(self) -> tuple[TargetFile, ...]:
        """All of its files."""
        if self.broken is not None:
            return (*self.broken.files, self.path)
        return (*(package_paths(self.found) if self.found else ()), self.path)


async def run_forget(runtime: Runtime, request: ForgetRequest) -> ForgetRun:
    """Remove backups; events report what was removed, and what is left.

    Raises:
        NotFoundError: there is no such backup; nothing was removed.
        ConfigError: a backup is pinned, or the newest good one, and that was not allowed, or a
            name can mean several; nothing was removed.
        DefinitionError: nobody knows which files belong to a backup; nothing was removed.
        StorageError: a target cannot be read, or the repository cannot be pruned.
        CorruptError: a repository is damaged, so nothing of it was pruned.
    """
    runtime, recording = runtime.recording(
        events.CleanVerdict, events.BackupRemoved, events.RemovalFailed, events.RepositorySwept
    )
    wanted = await _choose(runtime, request)
    for one in wanted:
        runtime.emit(await _verdict(one))
    _refuse([one for one in wanted if one.refused])
    if request.dry_run:
        freed_bytes = 0
        for target, of_target in _by_target(wanted):
            files = [file for one in of_target for file in one.files]
            freed_bytes += await would_free(target, files, runtime.emit) or 0
    else:
        await _remove_all(runtime, request, wanted)
        freed_bytes = sum(done.freed_bytes for done in recording.of(events.BackupRemoved)) + sum(
            swept.freed_bytes - swept.rewritten_bytes
            for swept in recording.of(events.RepositorySwept)
        )
    removed = recording.of(events.BackupRemoved)
    names = [one.named.name for one in wanted] if request.dry_run else [r.backup for r in removed]
    runtime.emit(events.BackupsForgotten(tuple(names), freed_bytes, request.dry_run))
    return ForgetRun(
        recording.of(events.CleanVerdict), removed, recording.of(events.RemovalFailed), freed_bytes
    )


async def _choose(runtime: Runtime, request: ForgetRequest) -> list[_Wanted]:
    """Return the backups that are meant, each once."""
    chosen: dict[TargetFile, NamedBackup] = {}
    for name in request.names:
        named = await find_named(runtime, request.group, name)
        if not named.has_date:
            hint = f"Write {name}@latest for the newest one, or give its date."
            raise ConfigError(f"{name}: which of its backups?", hint=hint)
        chosen.setdefault(named.path, named)
    return [await _look_at(runtime, request, named) for named in chosen.values()]


async def _look_at(runtime: Runtime, request: ForgetRequest, named: NamedBackup) -> _Wanted:
    """Find out what belongs to a backup, and whether it may go."""
    if named.found is None:
        broken = await find_broken(named.path, named.scan)
        refused = (PINNED,) if broken.pinned and not request.unpin else ()
        return _Wanted(named, None, broken, refused)
    found = named.found
    unclear = why_unclear(runtime.config, Catalog(named.target), named.scan, found)
    reasons = [f"not understood: {unclear}"] if unclear else []
    if found.definition.pinned and not request.unpin:
        reasons.append(PINNED)
    now_s = runtime.now().timestamp()
    if found.path == _newest_good(named.guest.backups, now_s) and not request.allow_newest:
        reasons.append(NEWEST)
    return _Wanted(named, found, None, tuple(reasons))


def _newest_good(backups: Sequence[FoundBackup], now_s: float) -> TargetFile | None:
    """Return the newest of a guest's backups that retention would count."""
    good = [
        found
        for found in backups
        if not found.definition.is_damaged and found.definition.date <= now_s
    ]
    newest = max(good, key=lambda found: (found.definition.date, found.path.name), default=None)
    return None if newest is None else newest.path


def _refuse(refused: Sequence[_Wanted]) -> None:
    if not refused:
        return
    reasons = {reason for one in refused for reason in one.refused}
    words = ", ".join(f"{one.named.name} ({', '.join(one.refused)})" for one in refused)
    options = {PINNED: "--unpin", NEWEST: "--allow-newest"}
    needed = [option for reason, option in options.items() if reason in reasons]
    hint = f"Give {' and '.join(needed)} to remove it anyway." if reasons <= set(options) else None
    raise ConfigError(f"nothing was removed: {words}", hint=hint)


async def _verdict(one: _Wanted) -> events.CleanVerdict:
    group, domain = one.named.group, one.named.domain
    keep, reasons = bool(one.refused), one.refused or (NAMED,)
    if one.broken is not None:
        return await verdict_on_broken(group, domain, one.broken, keep=keep, reasons=reasons)
    assert one.found is not None  # noqa: S101 -- it is one of both
    [verdict] = await verdicts_on(group, [RetentionDecision(one.found, keep, tuple(reasons))])
    return verdict


def _by_target(wanted: Sequence[_Wanted]) -> Iterator[tuple[StorageLocation, list[_Wanted]]]:
    for target in dict.fromkeys(one.named.target for one in wanted):
        yield target, [one for one in wanted if one.named.target == target]


async def _remove_all(runtime: Runtime, request: ForgetRequest, wanted: Sequence[_Wanted]) -> None:
    for target, of_target in _by_target(wanted):
        for one in of_target:
            await _remove(runtime, request, one)
        await prune(target, runtime.emit)


async def _remove(runtime: Runtime, request: ForgetRequest, one: _Wanted) -> None:
    named = one.named
    lock_wait = LockWait(
        request.wait_s,
        lambda message: runtime.emit(events.Warned(f"waiting: {message}", named.domain)),
    )
    forgetting = Forgetting(runtime.host, named.target, runtime.emit)
    forget = partial(forgetting.forget, named.domain, named.name)
    removal = _removed(one, lock_wait, forget)
    uuid = one.found.definition.domain_uuid if one.found else None
    await report_removal(runtime.emit, named.group, named.domain, named.name, removal, uuid=uuid)


async def _removed(one: _Wanted, lock_wait: LockWait, forget: Forget) -> int | None:
    if one.found is not None:
        if one.found.definition.pinned:
            await amend_definition(one.path, {"pinned": False})
        return await remove_backup(Catalog(one.named.target), one.found, lock_wait, forget)
    broken = one.broken
    if broken is not None and broken.pinned:
        broken = await _unpinned(one)
    if broken is None:
        return None
    await forget()
    return await remove_broken(broken, lock_wait)


async def _unpinned(one: _Wanted) -> BrokenPackage | None:
    """Take the pin out of a definition that can be read, or ``clean`` would not end its removal."""
    try:
        await amend_definition(one.path, {"pinned": False})
    except DefinitionError:
        return one.broken
    return await find_broken(one.path, one.named.scan)
