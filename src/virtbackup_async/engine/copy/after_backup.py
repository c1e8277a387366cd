"""The copies of a group, made after each of its backups: ``copies`` in the configuration."""

from collections.abc import Iterator

from virtbackup_async import events
from virtbackup_async.engine.copy.destination import find_destination
from virtbackup_async.engine.copy.selection import select_new
from virtbackup_async.engine.copy.session import DomainCopier
from virtbackup_async.engine.outcome import known_error
from virtbackup_async.engine.plan import PlannedBackup, target_of
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.model.guest import Guest


async def copy_new_backups(
    runtime: Runtime, planned: PlannedBackup, done: events.BackupDone, *, wait_s: float = 0
) -> None:
    """Copy a new backup, and others that are newer than the newest copy, into the other targets.

    A copy that fails is reported as an event; the backup stays as it is, and so do the other
    copies.

    Args:
        runtime: labels the events with the group.
        planned: the backup's plan, with the groups that it was made for.
        done: the new backup.
        wait_s: how long to wait for another process that copies the domain's backups.
    """
    for target in _targets(runtime, planned):
        try:
            await _copy(runtime, planned, done, target, wait_s)
        except Exception as error:  # noqa: BLE001 -- no error must undo the backup
            runtime.emit(_failed(done, target, known_error(done.domain, error)))


def _targets(runtime: Runtime, planned: PlannedBackup) -> Iterator[str]:
    """Yield the targets, each once; a group that inherits ``copies`` is no target of its own."""
    names = (planned.group.name, *planned.also_in)
    groups = (runtime.config.groups.get(name) for name in names)
    targets = [target for group in groups if group is not None for target in group.copies]
    return (target for target in dict.fromkeys(targets) if target not in names)


async def _copy(
    runtime: Runtime, planned: PlannedBackup, done: events.BackupDone, target: str, wait_s: float
) -> None:
    destination = await find_destination(runtime.config, target)
    source = target_of(planned.group)
    guest = Guest(done.domain, done.uuid)
    work = await select_new(source, destination, done.group, guest, done.backup)
    if work is not None:
        copier = DomainCopier(runtime, destination, work)
        copier.tell_others()
        await copier.run(wait_s=wait_s)


def _failed(done: events.BackupDone, target: str, error: VirtBackupError) -> events.CopyFailed:
    return events.CopyFailed(
        group=done.group,
        domain=done.domain,
        backup=done.backup,
        target=target,
        error=error.message,
        exit_code=error.exit_code,
        error_code=error.code,
        advice=error.hint,
        uuid=done.uuid,
    )
