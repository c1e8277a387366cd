"""A running domain whose pull jobs are real to the reader: QEMU's block layer serves its disks."""

import shutil
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from anyio import to_thread
from msgspec.structs import replace

from fakes.hypervisor import DescribedDomain
from fakes.nbd_servers import Export, storage_daemon
from virtbackup_async.model.domain import DomainInfo
from virtbackup_async.model.pull import PullJob, export_bitmap
from virtbackup_async.model.tracking import Tracking


class PulledDomain(DescribedDomain):
    """A domain on qcow2 images. A job serves copies of them, made in the moment that it begins.

    QEMU keeps old data in scratch images for the same; the copies let a test write to the images,
    as the guest does, without a guest. ``checkpoint`` adds a bitmap, as QEMU does with a job.
    """

    def __init__(self, images: dict[str, Path]) -> None:
        super().__init__(images)
        self.makes_socket = True
        self._server = ExitStack()

    async def info(self) -> DomainInfo:
        info = await super().info()
        return replace(info, xml=info.xml.replace("type='raw'", "type='qcow2'"))

    async def begin_backup(self, job: PullJob, tracking: Tracking, others: Iterable[str]) -> None:
        await super().begin_backup(job, tracking, others)
        if self.makes_socket:
            await to_thread.run_sync(self._serve, job, tracking)

    async def end_backup(self, socket: Path) -> None:
        await super().end_backup(socket)
        if self.job is None:
            self.kill_server()

    def shut_off(self) -> None:
        super().shut_off()
        self.job = None
        self.kill_server()

    def kill_server(self) -> None:
        """Let QEMU's export end, as it does with a job, or with QEMU."""
        self._server.close()

    async def delete_checkpoint(self, name: str, devs: Iterable[str]) -> bool:
        if name in self.checkpoints:
            for dev in devs:
                await to_thread.run_sync(_bitmap, self.own[dev], "--remove", name)
        return await super().delete_checkpoint(name, devs)

    def _serve(self, job: PullJob, tracking: Tracking) -> None:
        exports = {}
        for dev, scratch in job.scratch.items():
            image = self.own[dev]
            shutil.copyfile(image, scratch)
            since, bitmap = tracking.since(dev), None
            if since is not None:
                bitmap = export_bitmap(dev)
                _bitmap(scratch, "--add", "--merge", since, bitmap)
            exports[dev] = Export(scratch, "qcow2", bitmap)
            if tracking.checkpoint is not None and dev in tracking.in_checkpoint:
                _bitmap(image, "--add", tracking.checkpoint)
        self._server.enter_context(storage_daemon(image.parent, job.socket, exports))


def _bitmap(image: Path, *actions: str) -> None:
    *options, name = actions
    subprocess.run(["qemu-img", "bitmap", *options, str(image), name], check=True)
