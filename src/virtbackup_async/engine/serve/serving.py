"""Serves a backup: opens its package and its disks, listens, and reports damage that clients meet.

The package is held as for a restore, so ``clean`` does not remove it; the kernel releases the hold
with the process.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.engine.restore.plan import RestoredDisk, plan_restore
from virtbackup_async.engine.restore.read_images import open_package
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.serve.address import Listening, Place, open_place
from virtbackup_async.engine.serve.disks import OpenDisk, open_disks
from virtbackup_async.engine.serve.overlay_device import OverlayDevice
from virtbackup_async.engine.serve.overlay_file import Below, OverlayFile
from virtbackup_async.errors import ConfigError, VirtBackupError
from virtbackup_async.events import BackupServed, RangeUnreadable, ServedDisk, Warned
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.target_file import AnyFile
from virtbackup_async.nbd.server.server import DeviceExport, open_server

_MOST_TOLD: Final = 1000


class ServeRequest(Struct, frozen=True):
    """What to serve, and where.

    Attributes:
        definition: the backup.
        directory: where its package is.
        disks: the only ones to serve; none for all.
        place: where to listen.
        overlay: the file that takes what clients write to the only disk; None to take no writes.
    """

    definition: Definition
    directory: AnyFile
    disks: tuple[str, ...] = ()
    place: Place = Place()
    overlay: Path | None = None


@asynccontextmanager
async def serve_backup(runtime: Runtime, request: ServeRequest) -> AsyncGenerator[BackupServed]:
    """Serve the disks until the block ends.

    Raises:
        NotFoundError: the backup has no such disk.
        CorruptError: the package is missing or damaged.
        LockHeldError: it is being removed, or another process listens at the socket.
        ConfigError: no client should connect there, or the overlay is that of another disk.
        NbdConnectionError: no client could connect there.
        ImageError, DefinitionError, StorageError: a disk cannot be read anywhere.
    """
    definition = request.definition
    plan = plan_restore(definition, request.disks)
    if definition.is_damaged:
        runtime.emit(Warned(f"{definition.name} is known to be damaged", definition.domain_name))
    async with AsyncExitStack() as stack:
        package = await stack.enter_async_context(
            open_package(definition, request.directory, runtime.buffers)
        )
        disks = await stack.enter_async_context(
            open_disks(package, plan.disks, definition.domain_name, runtime.emit)
        )
        opened = open_place(request.place)
        listening = await to_thread.run_sync(opened.__enter__)
        stack.callback(opened.__exit__, None, None, None)
        serving = _Serving(runtime, definition)
        if request.overlay is not None:
            disks = [await _with_overlay(stack, plan.disks, disks, request.overlay, definition)]
        exports = {disk.dev: DeviceExport(disk.device, serving.title) for disk in disks}
        await stack.enter_async_context(
            open_server(listening.listener, exports, tls=listening.tls, on_failure=serving.report)
        )
        served = serving.served(disks, listening)
        runtime.emit(served)
        yield served


async def _with_overlay(
    stack: AsyncExitStack,
    plans: Sequence[RestoredDisk],
    disks: Sequence[OpenDisk],
    path: Path,
    definition: Definition,
) -> OpenDisk:
    """Return the only disk with an overlay above it, which is flushed and closed with ``stack``."""
    if len(disks) != 1:
        names = ", ".join(disk.dev for disk in disks)
        raise ConfigError(f"an overlay is for one disk, not for {names}", hint="Name one: --disk.")
    disk = disks[0]
    digests = tuple(image.expected_digest for image in plans[0].images if image.expected_digest)
    size_bytes = disk.device.size_bytes
    below = Below(definition.domain_name, definition.name, disk.dev, size_bytes, digests)
    file = await to_thread.run_sync(OverlayFile, path, below)
    stack.callback(file.close)
    device = OverlayDevice(disk.device, file)
    return OpenDisk(disk.dev, device, disk.format, disk.is_checked, is_writable=True)


class _Serving:
    """The events of a backup that is served."""

    def __init__(self, runtime: Runtime, definition: Definition) -> None:
        self._emit = runtime.emit
        self._definition = definition
        self._told: set[tuple[str, int, int]] = set()

    @property
    def title(self) -> str:
        return f"{self._definition.domain_name} {self._definition.name}"

    def served(self, disks: Sequence[OpenDisk], listening: Listening) -> BackupServed:
        definition = self._definition
        found = tuple(
            ServedDisk(
                disk.dev, listening.uri(disk.dev), disk.device.size_bytes, disk.format,
                disk.is_checked, disk.is_writable,
            )
            for disk in disks
        )  # fmt: skip
        return BackupServed(definition.domain_name, definition.name, found, definition.domain_uuid)

    def report(self, export: str, offset: int, length: int, error: Exception) -> None:
        """Report a range that could not be read, once: clients try again and again."""
        place = (export, offset, length)
        if place in self._told or len(self._told) >= _MOST_TOLD:
            return
        self._told.add(place)
        if isinstance(error, VirtBackupError):
            message, code = error.message, error.code
        else:
            message, code = str(error) or type(error).__name__, None
        definition = self._definition
        self._emit(
            RangeUnreadable(
                definition.domain_name, definition.name, export, offset, length, message, code,
                definition.domain_uuid,
            )
        )  # fmt: skip
