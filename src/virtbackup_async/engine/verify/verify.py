"""Verifying backups: is each still what was recorded, to the byte?

One ``verify`` command looks at many backups: those in a repository together, because they share
their chunks; the others domain by domain, the backups of one domain one after the other. What it
finds is kept in each backup's definition, where ``list`` shows it. Invariant: no damage stops the
others from being looked at; nothing but that key is ever written.
"""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from anyio import CapacityLimiter, create_task_group, current_time
from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.engine.inventory.listing import GroupBackups, broken_backups, choose_backups
from virtbackup_async.engine.restore.plan import RestoredImage, RestorePlan, plan_restore
from virtbackup_async.engine.restore.read_images import open_package, read_disk, read_state
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.verify.filters import draw_sample, parse_age, parse_since
from virtbackup_async.engine.verify.results import Chosen, Verdicts, joined
from virtbackup_async.engine.verify.sizes import look_at_package
from virtbackup_async.errors import CorruptError, NotFoundError, VirtBackupError
from virtbackup_async.events import (
    Event,
    RepositoryChecked,
    RunStarted,
    VerifyDone,
    VerifyFailed,
    VerifyStarted,
    Warned,
)
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.packager import type_of
from virtbackup_async.packagers.interface import Progress

K = TypeVar("K", bound=Hashable)


class VerifyRequest(Struct, frozen=True):
    """Which backups to verify, all as they were typed.

    Attributes:
        groups: none for all that have a target.
        domains: names or patterns; none for all that the groups' hosts mean.
        newer_than: an age or a date.
        not_verified_since: an age; a backup that was found damaged is always read again.
        sample: how many of what is left: ``5`` or ``10%``.
        quick: only look whether all is there, and as long as it should be.
    """

    groups: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    newer_than: str | None = None
    not_verified_since: str | None = None
    sample: str | None = None
    quick: bool = False


class VerifyRun(Struct, frozen=True):
    """What a run found: each backup that was looked at is good or damaged."""

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
        NotFoundError: a named group does not exist, nobody knows a named domain, or there is no
            backup at all.
        ConfigError: an age, a date, the sample or a pattern cannot be understood.
        StorageError: a target cannot be read; the others are verified all the same.
    """
    runtime, recording = runtime.recording(VerifyDone, VerifyFailed, RepositoryChecked)
    await _verify(runtime, request)
    return VerifyRun(
        recording.of(VerifyDone), recording.of(VerifyFailed), recording.of(RepositoryChecked)
    )


async def _verify(runtime: Runtime, request: VerifyRequest) -> None:
    config, emit, now = runtime.config, runtime.emit, runtime.now()
    wanted = _Wanted(request, now)
    groups = await choose_backups(config, request.groups, request.domains)
    chosen = wanted.choose(groups)
    emit(RunStarted("verify", tuple(_sorted_out(chosen, lambda one: one.domain))))
    for failed in _damaged(groups):
        emit(failed)
    verdicts = Verdicts(now, request.quick, emit)
    reader = _Reader(runtime.buffers, verdicts)
    slots = CapacityLimiter(config.threads)

    async def verify(work: Callable[[], Awaitable[None]]) -> None:
        async with slots:
            await work()

    shared = [one for one in chosen if _uses_repository(one)]
    others = [one for one in chosen if not _uses_repository(one)]
    async with create_task_group() as tasks:
        for target, backups in _sorted_out(shared, _target_of).items():
            work = partial(_verify_repository, target, backups, verdicts)
            tasks.start_soon(verify, work, name=f"verify {target}")
        for domain, backups in _sorted_out(others, lambda one: one.domain).items():
            work = partial(reader.verify_all, backups)
            tasks.start_soon(verify, work, name=f"verify {domain}")
    for error in {id(group.error): group.error for group in groups if group.error}.values():
        raise error
    if not any(group.backups or broken_backups(group) for group in groups):
        raise NotFoundError("there is no backup to verify", hint="Make one: virtbackup backup.")


def _uses_repository(chosen: Chosen) -> bool:
    return type_of(chosen.found.definition.packager).uses_repository


async def _verify_repository(target: Path, backups: list[Chosen], verdicts: Verdicts) -> None:
    # Loaded for repositories only: numpy takes a while.
    from virtbackup_async.engine.verify.repository import (  # noqa: PLC0415 -- see above
        verify_repository,
    )

    await verify_repository(target, backups, verdicts)


def _sorted_out(chosen: Iterable[Chosen], key: Callable[[Chosen], K]) -> dict[K, list[Chosen]]:
    sorted_out: dict[K, list[Chosen]] = {}
    for one in chosen:
        sorted_out.setdefault(key(one), []).append(one)
    return sorted_out


def _target_of(chosen: Chosen) -> Path:
    return chosen.found.path.parent.parent


class _Wanted:
    """What a request leaves of the backups that there are."""

    def __init__(self, request: VerifyRequest, now: datetime) -> None:
        self._today = now.date()
        self._sample = request.sample
        self._newer_than = 0 if request.newer_than is None else parse_since(request.newer_than, now)
        age = request.not_verified_since
        self._verified_before = None if age is None else (now - parse_age(age)).timestamp()
        if request.sample is not None:
            draw_sample([], request.sample, self._today, str)

    def choose(self, groups: Sequence[GroupBackups]) -> list[Chosen]:
        """Each backup once, though several groups may share a target and mean its domain."""
        by_path = {
            found.path: Chosen(group.group, found)
            for group in reversed(groups)
            for found in group.backups
            if self._wants(found)
        }
        chosen = list(by_path.values())
        if self._sample is None:
            return chosen
        return draw_sample(chosen, self._sample, self._today, lambda one: str(one.found.path))

    def _wants(self, found: FoundBackup) -> bool:
        if found.definition.date < self._newer_than:
            return False
        verified = found.definition.verified
        if self._verified_before is None or verified is None or not verified.ok:
            return True
        return verified.date < self._verified_before


def _damaged(groups: Sequence[GroupBackups]) -> list[Event]:
    """What should be a backup and cannot even be opened: filters do not apply to it.

    A pending file that cannot be read is none: ``clean`` and ``doctor`` tell what to do about it.
    """
    events: dict[str, Event] = {}
    for group in reversed(groups):
        for problem in group.problems:
            events[str(problem.path)] = Warned(problem.message, problem.domain_directory)
        for broken in broken_backups(group):
            message = f"{broken.definition}: {broken.error}"
            code = CorruptError.exit_code
            events[broken.definition] = VerifyFailed(
                broken.group, broken.domain, broken.backup, message, code
            )
    return list(events.values())


class _Reader(Struct, frozen=True):
    """Reads one backup at a time back; shared by all domains."""

    buffers: BufferPool
    verdicts: Verdicts

    async def verify_all(self, backups: Sequence[Chosen]) -> None:
        """Verify a domain's backups, one after the other."""
        for chosen in backups:
            try:
                await self._verify(chosen)
            except Exception as error:  # noqa: BLE001 -- whatever it is, it must not stop the others
                await self.verdicts.bad(chosen, error)

    async def _verify(self, chosen: Chosen) -> None:
        """Look at one backup.

        Raises:
            CorruptError: it is damaged.
            LockHeldError: it is being removed.
        """
        began_s = current_time()
        plan = plan_restore(chosen.found.definition)
        self.verdicts.emit(VerifyStarted(chosen.group, chosen.domain, chosen.name, plan.devs))
        if self.verdicts.quick:
            data_bytes = await look_at_package(chosen.found)
        else:
            data_bytes = await self._look_and_read(chosen, plan)
        await self.verdicts.good(
            chosen,
            digests=plan.is_verifiable,
            data_bytes=data_bytes,
            duration_s=current_time() - began_s,
        )

    async def _look_and_read(self, chosen: Chosen, plan: RestorePlan) -> int:
        """Find what ``--quick`` finds, and read all: a package that was altered is not good.

        A verdict that changes with the way of looking would be none, be all data there or not.
        """
        altered: list[VirtBackupError] = []
        try:
            await look_at_package(chosen.found)
        except VirtBackupError as error:
            altered.append(error)
        data_bytes = await self._read_all(chosen, plan)
        if altered:
            raise altered[0]
        return data_bytes

    async def _read_all(self, chosen: Chosen, plan: RestorePlan) -> int:
        """Read every disk, the others also when one is damaged; what is wrong with all of them."""
        definition, directory = chosen.found.definition, chosen.found.path.parent
        emit = self.verdicts.emit
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
