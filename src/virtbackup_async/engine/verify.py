"""Reading backups back: every byte, held against the digests that were recorded.

One ``verify`` command reads many domains side by side, the backups of one domain one after the
other. What it finds is kept in each backup's definition, where ``list`` shows it. Invariant: no
damage stops the others from being read; nothing but that key is ever written.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import anyio
from anyio import CapacityLimiter, create_task_group, current_time
from msgspec import Struct
from msgspec.structs import asdict

from virtbackup_async.catalog.amendment import amend_definition
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.ages import draw_sample, parse_age, parse_since
from virtbackup_async.engine.environment import MIB
from virtbackup_async.engine.listing import GroupBackups, choose_backups
from virtbackup_async.engine.open_package import open_package
from virtbackup_async.engine.read_back import read_back, read_back_state
from virtbackup_async.engine.restore_plan import RestoredImage, RestorePlan, plan_restore
from virtbackup_async.errors import CorruptError, NotFoundError, VirtBackupError
from virtbackup_async.events import (
    Emit,
    Event,
    RunStarted,
    VerifyDone,
    VerifyFailed,
    VerifyStarted,
    Warned,
)
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.model.backup import Verification
from virtbackup_async.packagers.interface import Progress

_log = logging.getLogger(__name__)


class VerifyRequest(Struct, frozen=True):
    """Which backups to verify, all as they were typed.

    Attributes:
        groups: none for all that have a target.
        domains: names or patterns; none for all that the groups' hosts mean.
        newer_than: an age or a date.
        not_verified_since: an age; a backup that was found damaged is always read again.
        sample: how many of what is left: ``5`` or ``10%``.
    """

    groups: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    newer_than: str | None = None
    not_verified_since: str | None = None
    sample: str | None = None


class _Chosen(Struct, frozen=True):
    group: str
    found: FoundBackup

    @property
    def domain(self) -> str:
        return self.found.definition.domain_name


async def run_verify(config: Config, request: VerifyRequest, now: datetime, emit: Emit) -> None:
    """Verify backups; a ``VerifyDone`` or a ``VerifyFailed`` for each of them.

    Raises:
        NotFoundError: a named group does not exist.
        ConfigError: an age, a date, the sample or a pattern cannot be understood.
        StorageError: a target cannot be read; the others are verified all the same.
    """
    wanted = _Wanted(request, now)
    groups = await choose_backups(config, request.groups, request.domains)
    by_domain: dict[str, list[_Chosen]] = {}
    for chosen in wanted.choose(groups):
        by_domain.setdefault(chosen.domain, []).append(chosen)
    emit(RunStarted("verify", tuple(by_domain)))
    for failed in _damaged(groups):
        emit(failed)
    reader = _Reader(BufferPool(config.buffers_mib * MIB), now, emit)
    slots = CapacityLimiter(config.threads)

    async def verify_domain(backups: Sequence[_Chosen]) -> None:
        async with slots:
            for chosen in backups:
                await reader.verify(chosen)

    async with create_task_group() as domains:
        for domain, backups in by_domain.items():
            domains.start_soon(verify_domain, backups, name=f"verify {domain}")
    for error in {id(group.error): group.error for group in groups if group.error}.values():
        raise error


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

    def choose(self, groups: Sequence[GroupBackups]) -> list[_Chosen]:
        """Each backup once, though several groups may share a target and mean its domain."""
        by_path = {
            found.path: _Chosen(group.group, found)
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
    """What should be a backup and cannot even be opened: filters do not apply to it."""
    events: dict[Path, Event] = {
        problem.path: VerifyFailed(
            group.group,
            problem.domain_directory,
            problem.path.stem,
            problem.message,
            CorruptError.exit_code,
        )
        for group in reversed(groups)
        for problem in group.problems
    }
    return list(events.values())


class _Reader(Struct, frozen=True):
    """Reads one backup at a time back; shared by all domains."""

    buffers: BufferPool
    now: datetime
    emit: Emit

    async def verify(self, chosen: _Chosen) -> None:
        """Turn what is found of one backup into its last event, and keep it."""
        began_s = current_time()
        definition = chosen.found.definition
        try:
            plan = plan_restore(definition)
            self.emit(VerifyStarted(chosen.group, chosen.domain, definition.name, plan.devs))
            data_bytes = await self._read_all(chosen, plan)
        except VirtBackupError as error:
            await self._failed(chosen, error)
            return
        except Exception as error:  # noqa: BLE001 -- a mistake of ours must not stop the others
            _log.exception("%s: unexpected error", definition.name)
            message = f"unexpected: {type(error).__name__}: {error}"
            self.emit(_failure(chosen, message, VirtBackupError.exit_code))
            return
        await self._keep(chosen, ok=True, digests=plan.is_verifiable)
        self.emit(
            VerifyDone(
                group=chosen.group,
                domain=chosen.domain,
                backup=definition.name,
                definition=str(chosen.found.path),
                digests=plan.is_verifiable,
                data_bytes=data_bytes,
                duration_s=round(current_time() - began_s, 3),
            )
        )

    async def _read_all(self, chosen: _Chosen, plan: RestorePlan) -> int:
        """Read every disk, the others also when one is damaged; what is wrong with all of them."""
        definition, directory = chosen.found.definition, chosen.found.path.parent
        data_bytes = 0
        failures: list[VirtBackupError] = []
        async with open_package(definition, directory, self.buffers) as package:
            for disk in plan.disks:
                try:
                    done = await read_back(disk, package, _drop, chosen.domain, self.emit)
                    data_bytes += done.data_bytes
                except VirtBackupError as error:
                    failures.append(error)
            for state in plan.state:
                try:
                    data_bytes += await read_back_state(state, package, _drop)
                except VirtBackupError as error:
                    failures.append(error)
        if failures:
            message = "; ".join(error.message for error in failures)
            raise _gravest(failures)(message) from failures[0]
        return data_bytes

    async def _failed(self, chosen: _Chosen, error: VirtBackupError) -> None:
        if not await anyio.Path(chosen.found.path).exists():
            name = chosen.found.definition.name
            self.emit(Warned(f"{name} was removed while it was read", chosen.domain))
            return
        if isinstance(error, CorruptError):
            # What could not be read now (permission, I/O) says nothing of the backup itself.
            await self._keep(chosen, ok=False, digests=True, error=error.message)
        self.emit(_failure(chosen, error.message, error.exit_code))

    async def _keep(
        self, chosen: _Chosen, *, ok: bool, digests: bool, error: str | None = None
    ) -> None:
        found = Verification(int(self.now.timestamp()), ok, digests, error)
        try:
            await amend_definition(chosen.found.path, {"verified": asdict(found)})
        except NotFoundError as gone:
            self.emit(Warned(gone.message, chosen.domain))
        except VirtBackupError as refused:
            message = f"the result cannot be kept, `list` will not show it: {refused.message}"
            self.emit(Warned(message, chosen.domain))


def _gravest(failures: Sequence[VirtBackupError]) -> type[VirtBackupError]:
    kinds = [type(error) for error in failures]
    return next((kind for kind in kinds if issubclass(kind, CorruptError)), kinds[0])


def _failure(chosen: _Chosen, message: str, exit_code: int) -> VerifyFailed:
    name = chosen.found.definition.name
    return VerifyFailed(chosen.group, chosen.domain, name, message, exit_code)


async def _drop(_image: RestoredImage, stream: DiskStream, on_progress: Progress) -> None:
    async for _chunk in stream.chunks():
        on_progress(stream.data_bytes)
