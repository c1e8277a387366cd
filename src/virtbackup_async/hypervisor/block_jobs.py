"""libvirt's block-job and lifecycle events, handed to whoever waits for one disk's job.

libvirt calls ``on_block_job`` and ``on_lifecycle`` on the loop's thread. They only take note and
wake a waiter: a libvirt call from inside an event callback would block the loop, or deadlock.
An event can be lost with its connection, so waiters poll beside it (see ``commit``).
"""

from collections.abc import Generator
from contextlib import contextmanager

import anyio
import libvirt

_READY = libvirt.VIR_DOMAIN_BLOCK_JOB_READY
_ENDED = {
    libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED: "failed",
    libvirt.VIR_DOMAIN_BLOCK_JOB_CANCELED: "was cancelled",
}


class BlockJobWatch:
    """What is known of one disk's block job from events alone.

    Attributes:
        ready: the job has mirrored everything and may be pivoted.
        ended: how it ended without success, as words for a message; None while it has not.
        domain_stopped: the domain is no longer running, and the job went with it.
    """

    def __init__(self) -> None:
        self.ready = False
        self.ended: str | None = None
        self.domain_stopped = False
        self._news = anyio.Event()

    def wake(self) -> None:
        """Let ``wait`` return; called after a change."""
        self._news.set()

    async def wait(self, timeout_s: float) -> None:
        """Return at the next change, or after ``timeout_s`` seconds without one."""
        with anyio.move_on_after(timeout_s):
            await self._news.wait()
        self._news = anyio.Event()


class BlockJobEvents:
    """The event callbacks of one connection, and who waits for which disk."""

    def __init__(self) -> None:
        self._watches: dict[tuple[str, str], BlockJobWatch] = {}

    @contextmanager
    def watch(self, uuid: str, dev: str) -> Generator[BlockJobWatch]:
        """Note events of one disk's job from here on; enter it *before* the job is started."""
        watch = self._watches[uuid, dev] = BlockJobWatch()
        try:
            yield watch
        finally:
            del self._watches[uuid, dev]

    def on_block_job(
        self,
        _connection: libvirt.virConnect,
        domain: libvirt.virDomain,
        dev: str,
        _job_type: int,
        status: int,
        _opaque: object,
    ) -> None:
        """VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2: names the disk by its target, not by a path."""
        watch = self._watches.get((domain.UUIDString(), dev))
        if watch is None:
            return
        watch.ready = watch.ready or status == _READY
        watch.ended = _ENDED.get(status, watch.ended)
        watch.wake()

    def on_lifecycle(
        self,
        _connection: libvirt.virConnect,
        domain: libvirt.virDomain,
        event: int,
        _detail: int,
        _opaque: object,
    ) -> None:
        """VIR_DOMAIN_EVENT_ID_LIFECYCLE: a stopped domain takes its block jobs along."""
        if event != libvirt.VIR_DOMAIN_EVENT_STOPPED:
            return
        uuid = domain.UUIDString()
        for (watched, _dev), watch in self._watches.items():
            if watched == uuid:
                watch.domain_stopped = True
                watch.wake()
