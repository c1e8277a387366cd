"""libvirt's block-job and lifecycle events, for a waiter on one disk's job.

libvirt calls ``on_block_job`` and ``on_lifecycle`` on the loop's thread. They only record the event
and wake the waiter: a libvirt call inside an event callback would block the loop, or deadlock. An
event can be lost with its connection, so waiters poll as well (see ``block_commit``).
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
    """The state of one disk's block job, as far as events report it.

    Attributes:
        ready: the job has copied everything and can be pivoted.
        ended: how it ended without success, as words for a message; None while it runs.
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
    """The event callbacks of one connection, and the waiters by disk."""

    def __init__(self) -> None:
        self._watches: dict[tuple[str, str], BlockJobWatch] = {}

    @contextmanager
    def watch(self, uuid: str, dev: str) -> Generator[BlockJobWatch]:
        """Record the events of one disk's job from here on; enter this *before* the job starts."""
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
        """VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2: names the disk by its target, not by its path."""
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
        """VIR_DOMAIN_EVENT_ID_LIFECYCLE: the block jobs of a stopped domain end with it."""
        if event != libvirt.VIR_DOMAIN_EVENT_STOPPED:
            return
        uuid = domain.UUIDString()
        for (watched, _dev), watch in self._watches.items():
            if watched == uuid:
                watch.domain_stopped = True
                watch.wake()
