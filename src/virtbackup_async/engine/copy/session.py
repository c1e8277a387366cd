"""One ``copy`` command: the backups of many domains, each copy independent of the others.

A failed copy is a result, reported as an event; it never stops another copy. Nothing is ever
removed from the other target, which has a retention of its own.
"""

from collections.abc import Iterator
from typing import Final

from anyio import CapacityLimiter, create_task_group, get_cancelled_exc_class
from msgspec import Struct

from virtbackup_async import events
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.copy.backup import CopyJob, copy_backup
from virtbackup_async.engine.copy.destination import Destination, find_destination
from virtbackup_async.engine.copy.selection import CopyRequest, DomainCopies, select_copies
from virtbackup_async.engine.copy.standing import Standing
from virtbackup_async.engine.locks import LockWait, hold_domain
from virtbackup_async.engine.outcome import known_error
from virtbackup_async.engine.reading import hold_all
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.undo.evidence import DeadBackup
from virtbackup_async.engine.undo.find_domain import GoneDomain, copies_lock_name
from virtbackup_async.engine.undo.pending import Undo
from virtbackup_async.errors import CorruptError, LockHeldError, RollbackError, VirtBackupError

_THERE: Final = "it is there already"
_REMOVED: Final = "it was removed meanwhile"


class CopyRun(Struct, frozen=True):
    """The result of a run: each selected backup is copied, skipped or failed."""

    done: tuple[events.CopyDone, ...]
    skipped: tuple[events.CopySkipped, ...]
    failed: tuple[events.CopyFailed, ...]
    planned: tuple[events.CopyPlanned, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no copy failed."""
        return not self.failed


async def run_copy(runtime: Runtime, request: CopyRequest) -> CopyRun:
    """Copy backups into another target; one that is there already is skipped.

    Emits a ``CopyDone``, ``CopySkipped`` or ``CopyFailed`` for each selected backup; of a dry run,
    a ``CopyPlanned`` in place of the first.

    Raises:
        NotFoundError: there is no such group, domain or backup, or there is no backup at all.
        ConfigError: a name or a date cannot be understood, or source and target are the same, or
            lie in each other.
        StorageError: a target is missing or cannot be read; what is in others was copied.
    """
    runtime, recording = runtime.recording(
        events.CopyDone, events.CopySkipped, events.CopyFailed, events.CopyPlanned
    )
    destination = await find_destination(runtime.config, request.target, request.packager)
    works, unreadable = await select_copies(runtime, request, destination)
    jobs = [DomainCopier(runtime, destination, work) for work in works]
    runtime.emit(
        events.RunStarted("copy", tuple({one.work.domain: None for one in jobs if one.missing}))
    )
    for source in dict.fromkeys(work.source for work in works):
        if source.is_encrypted and not destination.target.is_encrypted:
            message = f"{source} is encrypted, and the copies in {destination.target} are not"
            runtime.emit(events.Warned(message))
    if not request.dry_run:
        expected = tuple(one for job in jobs for one in job.expected())
        runtime.emit(events.BackupsExpected(expected))
    slots = CapacityLimiter(runtime.config.threads)

    async def copy(job: DomainCopier) -> None:
        async with slots:
            await job.run(wait_s=request.wait_s)

    to_read = [] if request.dry_run else [found for job in jobs for found in job.missing]
    async with hold_all(to_read), create_task_group() as tasks:
        for job in jobs:
            job.tell_others()
            if request.dry_run:
                job.plan()
            else:
                tasks.start_soon(copy, job, name=f"copy {job.work.domain}")
    if unreadable is not None:
        raise unreadable
    return CopyRun(
        recording.of(events.CopyDone),
        recording.of(events.CopySkipped),
        recording.of(events.CopyFailed),
        recording.of(events.CopyPlanned),
    )


class DomainCopier:
    """Copies the backups of one domain, and reports what becomes of each.

    Attributes:
        work: the backups.
        missing: those that the target lacks.
    """

    def __init__(self, runtime: Runtime, destination: Destination, work: DomainCopies) -> None:
        """Compare the backups with those in the target."""
        self.work = work
        self.missing: list[FoundBackup] = []
        self._runtime = runtime
        self._destination = destination
        self._target = str(destination.target)
        self._standing = Standing(work.there, work.lock)
        self._there: list[FoundBackup] = []
        self._refused: list[tuple[str, VirtBackupError, str | None]] = [
            (broken.backup, CorruptError(broken.error), None) for broken in work.broken
        ]
        for found in work.backups:
            self._look(found)

    def expected(self) -> Iterator[events.ExpectedBackup]:
        """Yield how much there is to copy, for progress bars."""
        for found in self.missing:
            records = found.definition.records
            disks = tuple(
                events.ExpectedDisk(dev, sum(one.data_bytes for one in (disk.image, *disk.backing)))
                for dev, disk in records.items()
            )
            yield events.ExpectedBackup(
                self.work.group, self.work.domain, self._target, disks, backup=found.definition.name
            )

    def tell_others(self) -> None:
        """Report the backups that need not, or cannot, be copied."""
        for found in self._there:
            self._skip(found, _THERE)
        for name, error, uuid in self._refused:
            self._fail(name, error, uuid)

    def plan(self) -> None:
        """Report the backups that would be copied."""
        for found in self.missing:
            definition = found.definition
            self._runtime.emit(
                events.CopyPlanned(
                    group=self.work.group,
                    domain=self.work.domain,
                    backup=definition.name,
                    target=self._target,
                    data_bytes=sum(image.data_bytes for image in definition.images),
                    uuid=definition.domain_uuid,
                )
            )

    async def run(self, *, wait_s: float) -> None:
        """Copy what is missing; raises no ``VirtBackupError``.

        Args:
            wait_s: how long to wait for another process that copies the domain's backups.
        """
        work = self.work
        if work.lock is None or not (self.missing or self._standing.has_dead_copies):
            return
        lock_wait = LockWait(wait_s, self._tell_waiting)
        doing = f"copy to {self._target}"
        images = self._runtime.host.images
        try:
            async with hold_domain(images, work.domain, work.lock, doing, lock_wait) as is_alone:
                await _undo_dead_copies(
                    self._runtime, self._destination.catalog, work, is_alone=is_alone
                )
                for found in await self._still_missing():
                    await self._copy(found)
        except Exception as error:  # noqa: BLE001 -- no error must stop the other domains
            if self.missing or not isinstance(error, LockHeldError):
                self._fail(None, known_error(work.domain, error))

    async def _still_missing(self) -> list[FoundBackup]:
        """Return what another process did not copy while this one waited; report the rest."""
        there = await self._destination.catalog.scan_guest(self.work.guest)
        self._standing = Standing(there, self.work.lock)
        looked_at, self.missing = self.missing, []
        self._there.clear()
        self._refused.clear()
        for found in looked_at:
            self._look(found)
        self.tell_others()
        return self.missing

    def _look(self, found: FoundBackup) -> None:
        try:
            there = self._standing.find_copy(found.definition)
        except VirtBackupError as error:
            self._refused.append((found.definition.name, error, found.definition.domain_uuid))
        else:
            (self.missing if there is None else self._there).append(found)

    async def _copy(self, found: FoundBackup) -> None:
        """Copy one backup, as it is now."""
        work, runtime, name = self.work, self._runtime, found.definition.name
        uuid = found.definition.domain_uuid
        catalog = Catalog(work.source)
        try:
            definition = await catalog.read_definition(found.path)
            if definition is None:
                self._skip(found, _REMOVED)
                return
            devs = tuple(definition.disks)
            runtime.emit(
                events.CopyStarted(work.group, work.domain, name, self._target, devs, uuid)
            )
            now = FoundBackup(definition, found.path)
            job = CopyJob(work.group, now, work.source, self._destination)
            runtime.emit(await copy_backup(runtime, job))
        except get_cancelled_exc_class():
            self._fail(name, VirtBackupError("cancelled"), uuid, cancelled=True)
            raise
        except Exception as error:  # noqa: BLE001 -- no error must stop the other copies
            if await _is_gone(catalog, found):
                self._skip(found, _REMOVED)
            else:
                self._fail(name, known_error(name, error), uuid)

    def _fail(
        self,
        backup: str | None,
        error: VirtBackupError,
        uuid: str | None = None,
        *,
        cancelled: bool = False,
    ) -> None:
        self._runtime.emit(
            events.CopyFailed(
                group=self.work.group,
                domain=self.work.domain,
                backup=backup,
                target=self._target,
                error=error.message,
                exit_code=error.exit_code,
                cancelled=cancelled,
                left_pending=isinstance(error, RollbackError),
                error_code=error.code,
                advice=error.hint,
                uuid=uuid,
            )
        )

    def _skip(self, found: FoundBackup, reason: str) -> None:
        backup = found.definition
        self._runtime.emit(
            events.CopySkipped(
                self.work.group,
                self.work.domain,
                backup.name,
                self._target,
                reason,
                backup.domain_uuid,
            )
        )

    def _tell_waiting(self, message: str) -> None:
        self._runtime.emit(events.Warned(f"waiting: {message}", self.work.domain))


async def _is_gone(catalog: Catalog, found: FoundBackup) -> bool:
    try:
        return await catalog.read_definition(found.path) is None
    except VirtBackupError:
        return False


async def _undo_dead_copies(
    runtime: Runtime, catalog: Catalog, work: DomainCopies, *, is_alone: bool
) -> None:
    """Undo what killed copies left; the caller holds their lock, so nobody makes them now.

    Raises:
        RollbackError, StorageError, LockHeldError: something could not be removed.
    """
    domain = GoneDomain(work.domain)
    undo = Undo(runtime.hypervisor, domain, catalog, runtime.host, is_alone)
    for found in (await catalog.scan_guest(work.guest)).pending:
        pending = found.pending
        if pending.copied_from is not None and copies_lock_name(pending) == work.lock:
            message = f"undoing the copy of {pending.name}, which was killed"
            runtime.emit(events.Warned(message, work.domain))
            await undo.of(DeadBackup(pending, found.path, None))
