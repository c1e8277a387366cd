"""The ``verify`` command: does each backup still match its record, byte for byte?

Backups in a repository are verified together, because they share their chunks; the others domain
by domain, one backup after the other. The definition records the result, and ``list`` shows it.
Invariants: damage to one backup never stops the others from being verified; nothing but that result
is written.
"""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from anyio import CapacityLimiter, create_task_group, current_time, to_thread
from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.inventory.chosen_by_words import choose_by_words
from virtbackup_async.engine.inventory.group_backups import GroupBackups, broken_backups
from virtbackup_async.engine.restore.plan import RestoredImage, RestorePlan, plan_restore
from virtbackup_async.engine.restore.read_images import open_package, read_disk, read_state
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.verify.filters import BackupFilter, VerifyRequest
from virtbackup_async.engine.verify.results import Amount, Results, SelectedBackup, joined
from virtbackup_async.errors import CorruptError, NotFoundError, VirtBackupError, code_of
from virtbackup_async.events import (
    BackupsExpected,
    Event,
    ExpectedBackup,
    ExpectedDisk,
    RepositoryChecked,
    RunStarted,
    VerifyDone,
    VerifyFailed,
    VerifyStarted,
    Warned,
)
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.amounts import length_compared
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.packager import backup_files, packed_files, type_of
from virtbackup_async.model.read_share import Drawing, ReadShare
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.packagers.interface import Progress
from virtbackup_async.repository import open_storage

K = TypeVar("K", bound=Hashable)


class VerifyRun(Struct, frozen=True):
    """The result of a run: each verified backup is good or damaged."""

    good: tuple[VerifyDone, ...]
    damaged: tuple[VerifyFailed, ...]
    repositories: tuple[RepositoryChecked, ...]

    @property
    def ok(self) -> bool:
        """Whether no backup is damaged."""
        return not self.damaged


async def run_verify(runtime: Runtime, request: VerifyRequest) -> VerifyRun:
    """Verify backups; emits a ``VerifyDone`` or a ``VerifyFailed`` for each of them.

    Raises:
        NotFoundError: a named group does not exist, a named domain is unknown, or there is no
            backup.
        ConfigError: an age, a date, the sample or a pattern cannot be understood.
        StorageError: a target cannot be read; the others are verified anyway.
    """
    runtime, recording = runtime.recording(VerifyDone, VerifyFailed, RepositoryChecked)
    await _verify(runtime, request)
    return VerifyRun(
        recording.of(VerifyDone), recording.of(VerifyFailed), recording.of(RepositoryChecked)
    )


async def _verify(runtime: Runtime, request: VerifyRequest) -> None:
    config, emit, now = runtime.config, runtime.emit, runtime.now()
    wanted = BackupFilter(request, now)
    groups = await choose_by_words(runtime, request.groups, request.domains)
    chosen = wanted.choose(groups)
    emit(RunStarted("verify", tuple(_grouped(chosen, lambda one: one.domain))))
    reads = _Reads(config, wanted, chosen)
    unread = frozenset(one.found.path for one in chosen if request.quick or not reads.all_of(one))
    emit(BackupsExpected(tuple(_expected(one, quick=one.found.path in unread) for one in chosen)))
    for failed in _damaged(groups):
        emit(failed)
    results = Results(now, request.quick, emit)
    reader = _Reader(runtime.buffers, results, unread)
    slots = CapacityLimiter(config.threads)

    async def verify(work: Callable[[], Awaitable[None]]) -> None:
        async with slots:
            await work()

    shared = [one for one in chosen if _uses_repository(one)]
    others = [one for one in chosen if not _uses_repository(one)]
    async with create_task_group() as tasks:
        for target, backups in _grouped(shared, _target_of).items():
            work = partial(_verify_repository, target, backups, results, reads.share(target))
            tasks.start_soon(verify, work, name=f"verify {target}")
        for domain, backups in _grouped(others, lambda one: one.domain).items():
            work = partial(reader.verify_all, backups)
            tasks.start_soon(verify, work, name=f"verify {domain}")
    for error in {id(group.error): group.error for group in groups if group.error}.values():
        raise error
    if not any(group.backups or broken_backups(group) for group in groups):
        raise NotFoundError("there is no backup to verify", hint="Make one: virtbackup backup.")


def _expected(chosen: SelectedBackup, *, quick: bool) -> ExpectedBackup:
    """Return how much is read for one backup; chunks of a repository are read once for all."""
    records = chosen.found.definition.records
    if quick or _uses_repository(chosen):
        records = {}
    disks = tuple(
        ExpectedDisk(dev, sum(image.data_bytes for image in (record.image, *record.backing)))
        for dev, record in records.items()
    )
    target = str(_target_of(chosen))
    return ExpectedBackup(chosen.group, chosen.domain, target, disks, backup=chosen.name)


def _uses_repository(chosen: SelectedBackup) -> bool:
    return type_of(chosen.found.definition.packager).uses_repository


class _Reads:
    """How much of the data is read: a share of each repository, or whole packages of a share."""

    def __init__(
        self, config: Config, wanted: BackupFilter, chosen: Sequence[SelectedBackup]
    ) -> None:
        self._shares: dict[StorageLocation, ReadShare] = {}
        for one in chosen:
            target = _target_of(one)
            if target not in self._shares:
                group = config.groups.get(one.group)
                configured = None if group is None else group.verify_read_data
                self._shares[target] = wanted.share(target, configured)
        others = [one for one in chosen if not _uses_repository(one)]
        self._drawn = frozenset(
            one.found.path
            for target, backups in _grouped(others, _target_of).items()
            for one in _drawn(backups, self._shares[target])
        )

    def share(self, target: StorageLocation) -> ReadShare:
        return self._shares[target]

    def all_of(self, chosen: SelectedBackup) -> bool:
        """Return whether a backup is read by itself, and completely."""
        return chosen.found.path in self._drawn


def _drawn(backups: Sequence[SelectedBackup], share: ReadShare) -> Iterator[SelectedBackup]:
    """Yield the backups with files of their own that are read."""
    lengths = [sum(image.data_bytes for image in one.found.definition.images) for one in backups]
    drawing = Drawing(share, sum(lengths))
    for one, length_bytes in zip(backups, lengths, strict=True):
        if share.is_all or drawing.draws(length_bytes):
            yield one


async def _verify_repository(
    target: StorageLocation, backups: list[SelectedBackup], results: Results, share: ReadShare
) -> None:
    # Imported for repositories only: numpy is slow to load.
    from virtbackup_async.engine.verify.repository import (  # noqa: PLC0415 -- see above
        verify_repository,
    )

    await verify_repository(target, backups, results, share)


def _grouped(
    chosen: Iterable[SelectedBackup], key: Callable[[SelectedBackup], K]
) -> dict[K, list[SelectedBackup]]:
    sorted_out: dict[K, list[SelectedBackup]] = {}
    for one in chosen:
        sorted_out.setdefault(key(one), []).append(one)
    return sorted_out


def _target_of(chosen: SelectedBackup) -> StorageLocation:
    return chosen.found.path.target


def _damaged(groups: Sequence[GroupBackups]) -> list[Event]:
    """Return an event for each definition that cannot be read, whatever the filters.

    ``clean`` and ``doctor`` report pending files that cannot be read.
    """
    events: dict[str, Event] = {}
    for group in reversed(groups):
        for problem in group.problems:
            events[str(problem.path)] = Warned(problem.message, problem.domain)
        for broken in broken_backups(group):
            message = f"{broken.definition}: {broken.error}"
            kind = CorruptError
            events[broken.definition] = VerifyFailed(
                broken.group, broken.domain, broken.backup, message, kind.exit_code, code_of(kind)
            )
    return list(events.values())


class _Reader(Struct, frozen=True):
    """Reads backups, one at a time; all domains share it."""

    buffers: BufferPool
    results: Results
    unread: frozenset[TargetFile]

    async def verify_all(self, backups: Sequence[SelectedBackup]) -> None:
        """Verify a domain's backups, one after the other."""
        for chosen in backups:
            try:
                await self._verify(chosen)
            except Exception as error:  # noqa: BLE001 -- no error must stop the others
                await self.results.bad(chosen, error)

    async def _verify(self, chosen: SelectedBackup) -> None:
        """Verify one backup.

        Raises:
            CorruptError: it is damaged.
            LockHeldError: it is being removed.
        """
        began_s = current_time()
        plan = plan_restore(chosen.found.definition)
        self.results.emit(
            VerifyStarted(chosen.group, chosen.domain, chosen.name, plan.devs, chosen.uuid)
        )
        is_read = chosen.found.path not in self.unread
        if not is_read:
            data_bytes = await _check_sizes(chosen.found)
        else:
            data_bytes = await self._check_and_read(chosen, plan)
        await self.results.good(
            chosen,
            digests=plan.is_verifiable,
            data_bytes=data_bytes,
            duration_s=current_time() - began_s,
            amount=Amount.ALL if is_read else Amount.NOTHING,
        )

    async def _check_and_read(self, chosen: SelectedBackup, plan: RestorePlan) -> int:
        """Check the sizes as ``--quick`` does, and read everything.

        Without the sizes, ``--quick`` might report a backup as damaged that a full run finds good.
        """
        changed: list[VirtBackupError] = []
        try:
            await _check_sizes(chosen.found)
        except VirtBackupError as error:
            changed.append(error)
        data_bytes = await self._read_all(chosen, plan)
        if changed:
            raise changed[0]
        return data_bytes

    async def _read_all(self, chosen: SelectedBackup, plan: RestorePlan) -> int:
        """Read every disk, continuing after damage; raise one error for all."""
        definition, directory = chosen.found.definition, chosen.found.path.parent
        emit = self.results.emit
        data_bytes = 0
        failures: list[VirtBackupError] = []
        async with open_package(definition, directory, self.buffers) as package:
            for disk in plan.disks:
                try:
                    done = await read_disk(disk, package, _drop, chosen.domain, emit)
                    data_bytes += done.data_bytes
                except VirtBackupError as error:
                    failures.append(error)
            for state in plan.state:
                try:
                    data_bytes += await read_state(state, package, _drop)
                except VirtBackupError as error:
                    failures.append(error)
        if failures:
            raise joined(failures) from failures[0]
        return data_bytes


async def _drop(_image: RestoredImage, stream: DiskStream, on_progress: Progress) -> None:
    async for _chunk in stream.pieces():
        on_progress(stream.data_bytes)


async def _check_sizes(found: FoundBackup) -> int:
    """Check that a package's files exist and are long enough, as ``--quick`` does.

    Returns:
        The bytes of data that its definition records; 0 for backups of virt-backup.

    Raises:
        CorruptError: a file is missing, no regular file, or too short.
        DefinitionError: the packager is not known.
        StorageError: a file cannot be inspected now.
    """
    await to_thread.run_sync(_compare_sizes, found.definition, found.path.parent)
    return sum(image.data_bytes for image in found.definition.images)


def _compare_sizes(definition: Definition, directory: TargetFile) -> None:
    files = backup_files(definition, directory)
    sizes = type_of(definition.packager).least_bytes(definition, packed_files(definition))
    storage = open_storage(directory.target)
    for file, least_bytes in zip(files, sizes, strict=True):
        try:
            # It may be complete: a StorageError, an inspection that fails now, is no damage.
            status = storage.status(file.stored_name)
        except FileNotFoundError as error:
            raise CorruptError(f"package is missing: {file}") from error
        if not status.is_file:
            raise CorruptError(f"package is no regular file: {file}")
        if status.size_bytes < least_bytes:
            raise CorruptError(
                f"package is cut off: {file} is {length_compared(status.size_bytes, least_bytes)}"
            )
