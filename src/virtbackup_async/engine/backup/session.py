"""One ``backup`` command: many domains concurrently, each independent of the others.

A domain's failure is a result, reported as an event; it never stops another domain. If several
groups want backups of one domain, these run one after the other.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

import anyio
from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async import errors, events
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.concurrency import open_background
from virtbackup_async.engine.backup.domain import back_up_domain
from virtbackup_async.engine.backup.expectation import tell_expected
from virtbackup_async.engine.backup.hooks import OpenHooks, open_hooks
from virtbackup_async.engine.backup.open_repositories import open_repositories
from virtbackup_async.engine.backup.returned import warn_of_return
from virtbackup_async.engine.inventory.lacking import missing_since_last, up_to
from virtbackup_async.engine.outcome import known_error
from virtbackup_async.engine.plan import (
    Plan,
    PlannedBackup,
    PlannedMissing,
    plan_backups,
    target_of,
)
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.files.mounts import space_of
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.note import checked_note
from virtbackup_async.packagers.registry import load_writers

ALLOW_EMPTY_HINT = "Name a group, write autostart: true, or allow it with --allow-empty."


AfterEach = Callable[[Runtime, PlannedBackup, events.BackupDone], Awaitable[None]]


class BackupRequest(Struct, frozen=True):
    """The domains to back up, and how.

    Attributes:
        groups: the groups whose domains are backed up, and single domains of groups; none for all
            groups with ``autostart``.
        wait_s: how long to wait for a domain that another process works on.
        allow_empty: whether a run that finds nothing to back up is a success.
        note: one line that goes into the definitions.
        pinned: whether `clean` must never remove the new backups.
        estimate: whether to find out, while the backups begin, how much each of them will read.
        after_each: called with each new backup, while others are being made; reports its own
            failures.
    """

    groups: Sequence[str] = ()
    wait_s: float = 0
    allow_empty: bool = False
    note: str | None = None
    pinned: bool = False
    estimate: bool = True
    after_each: AfterEach | None = None


class BackupRun(Struct, frozen=True):
    """The result of a run: each planned backup is done or failed, and so is each of its copies."""

    done: tuple[events.BackupDone, ...]
    failed: tuple[events.BackupFailed, ...]
    copied: tuple[events.CopyDone, ...] = ()
    not_copied: tuple[events.CopyFailed, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no backup failed, and no copy of one."""
        return not self.failed and not self.not_copied


async def run_backup(runtime: Runtime, request: BackupRequest) -> BackupRun:
    """Back up the domains of the named groups, or of all with ``autostart``.

    Emits a ``BackupDone`` or a ``BackupFailed`` for each planned backup; a failed one stops no
    other, and raises nothing.

    Raises:
        BackupsFailedError: there was nothing to back up, and that is not allowed. A line that was
            lost in an edit of the configuration must not look like success for ever.
        NotFoundError: a name is neither a group of the configuration nor a domain of one.
        HypervisorError: the domains cannot be listed.
        ConfigError: the environment names no absolute path for the state directory, a named domain
            is in groups with several targets, or the note is invalid.
    """
    runtime, recording = runtime.recording(
        events.BackupDone, events.BackupFailed, events.CopyDone, events.CopyFailed
    )
    await _back_up(runtime, request)
    return BackupRun(
        recording.of(events.BackupDone),
        recording.of(events.BackupFailed),
        recording.of(events.CopyDone),
        recording.of(events.CopyFailed),
    )


async def plan_run(runtime: Runtime, request: BackupRequest) -> Plan:
    """Return the work of a run, and emit its warnings; errors are those of :func:`run_backup`."""
    _ = runtime.host  # every backup needs it: if it cannot be known, nothing begins
    domain_names = await runtime.hypervisor.domain_names()
    plan = plan_backups(runtime.config, request.groups, domain_names)
    for message in plan.warnings:
        runtime.emit(events.Warned(message))
    return plan


def missing_event(missing: PlannedMissing) -> events.BackupFailed:
    """Return the event for a domain, or a group, that is named and does not exist."""
    unknown = errors.DomainNotFoundError(
        missing.reason, domain=missing.pattern, hint=errors.DOMAINS_HINT
    )
    return events.BackupFailed(
        missing.group,
        missing.pattern,
        str(unknown),
        unknown.exit_code,
        reason=unknown.sentences_within(missing.pattern),
        error_code=unknown.code,
        advice=unknown.hint,
    )


async def _back_up(runtime: Runtime, request: BackupRequest) -> None:
    config, emit = runtime.config, runtime.emit
    note = checked_note(request.note)
    plan = await plan_run(runtime, request)
    session = _Session(
        runtime, anyio.CapacityLimiter(config.threads), request.wait_s, request.after_each
    )
    by_domain: dict[str, list[PlannedBackup]] = {}
    for planned in plan.backups:
        noted = replace(planned, note=note, pinned=request.pinned)
        by_domain.setdefault(planned.domain, []).append(noted)
    emit(events.RunStarted("backup", tuple(by_domain)))
    types = {planned.group.packager.type for planned in plan.backups}
    async with open_background() as loading, open_hooks(config, plan, emit) as hooks:
        # In the meantime, the backups mostly wait for libvirt's replies.
        loading.start_soon(to_thread.run_sync, load_writers, types, name="load packagers")
        begun = tuple(filter(hooks.lets_pass, plan.backups))
        # Not before the hooks: they may mount a target.
        await _open_repositories(runtime, begun, hooks)
        if request.estimate:
            loading.start_soon(tell_expected, runtime, begun, name="expected sizes")
        for missing in plan.missing:
            failed = missing_event(missing)
            hooks.note([missing.group], failed)
            emit(failed)
        await _back_up_all(session, hooks, by_domain)
        await _tell_space(runtime, filter(hooks.lets_pass, plan.backups))
        if plan.is_empty and not request.allow_empty:
            error = errors.BackupsFailedError(
                f"nothing was backed up: {plan.emptiness}", hint=ALLOW_EMPTY_HINT
            )
            # So that ``on_failure`` is called, without a domain because none was found.
            hooks.note((), events.BackupFailed("", "", error.message, error.exit_code))
            raise error


async def _open_repositories(
    runtime: Runtime, backups: Sequence[PlannedBackup], hooks: OpenHooks
) -> None:
    try:
        await open_repositories(runtime, backups)
    except errors.ConfigError as error:
        groups = {planned.group.name for planned in backups}
        hooks.note(groups, events.BackupFailed("", "", error.message, error.exit_code))
        raise


async def _tell_space(runtime: Runtime, backups: Iterable[PlannedBackup]) -> None:
    """Report the space of each target; skip a target that does not answer."""
    for target in dict.fromkeys(target_of(planned.group) for planned in backups):
        with suppress(OSError, errors.StorageError):
            space = await space_of(target)
            if space is not None:
                runtime.emit(events.TargetSpace(str(target), space.total_bytes, space.free_bytes))


class _Session(Struct, frozen=True):
    """The resources that the backups of one run share."""

    runtime: Runtime
    slots: anyio.CapacityLimiter
    wait_s: float
    after_each: AfterEach | None


async def _back_up_all(
    session: _Session, hooks: OpenHooks, by_domain: dict[str, list[PlannedBackup]]
) -> None:
    async def back_up(backups: list[PlannedBackup]) -> None:
        first = backups[0]
        session.runtime.labelled(first.group.name).emit(
            events.PhaseChanged(first.domain, events.Phase.WAITING)
        )
        async with session.slots:
            done = [(planned, await _outcome(session, hooks, planned)) for planned in backups]
        for planned, backup in done:
            if backup is not None and session.after_each is not None:
                runtime = session.runtime.labelled(planned.group.name)
                await session.after_each(runtime, planned, backup)

    async with anyio.create_task_group() as domains:
        for name, backups in by_domain.items():
            domains.start_soon(back_up, backups, name=f"back up {name}")


async def _outcome(
    session: _Session, hooks: OpenHooks, planned: PlannedBackup
) -> events.BackupDone | None:
    """Back one domain up; report success, failure or cancellation as its last event."""
    runtime = session.runtime.labelled(planned.group.name)

    def end(result: events.BackupDone | events.BackupFailed) -> None:
        hooks.note((planned.group.name, *planned.also_in), result)
        runtime.emit(result)

    try:
        hooks.check(planned)
        done = await back_up_domain(runtime, planned, wait_s=session.wait_s)
        catalog = Catalog(target_of(planned.group))
        guest = Guest(planned.domain, done.uuid)
        complete = await up_to(catalog, guest, done.backup)
        missing = missing_since_last(complete, done.backup)
        for warning in warn_of_return(complete):
            runtime.emit(
                events.Warned(
                    warning,
                    planned.domain,
                    backup=done.backup,
                    uuid=done.uuid,
                    code="guest_came_back",
                )
            )
    except anyio.get_cancelled_exc_class():
        end(failed_event(planned, errors.VirtBackupError("cancelled"), cancelled=True))
        raise
    except Exception as error:  # noqa: BLE001 -- no error must stop the other domains
        end(failed_event(planned, known_error(planned.domain, error)))
    else:
        done = replace(done, missing=tuple(dict.fromkeys((*done.missing, *missing))))
        end(done)
        return done
    return None


def failed_event(
    planned: PlannedBackup, error: errors.VirtBackupError, *, cancelled: bool = False
) -> events.BackupFailed:
    """Return the event for a planned backup that an error ended."""
    left_pending = isinstance(error, errors.RollbackError)
    return events.BackupFailed(
        planned.group.name,
        planned.domain,
        str(error),
        error.exit_code,
        cancelled,
        left_pending,
        error.sentences_within(planned.domain),
        error_code=error.code,
        advice=error.hint,
    )
