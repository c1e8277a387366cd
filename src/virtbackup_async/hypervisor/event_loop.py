"""libvirt's asyncio event implementation, made safe for calls from worker threads.

libvirt drives an application's event loop through six hooks: add, update and remove, for file
handles and for timers. It calls them from any thread that makes an API call, and libvirtaio then
calls ``loop.add_reader`` and ``ensure_future`` there, though they belong to the loop's thread. Here
each hook only queues a note, and the loop does the work::

    any thread:  hook ──> note in a queue ──> call_soon_threadsafe(drain)   and returns at once
    loop thread: hook ──> note in a queue ──> drain now

- One queue for all threads keeps the order: a handle removed in a thread and one added for the
  same descriptor number, which the kernel hands out again at once, reach the loop in that order.
- No hook waits for the loop. libvirt holds its client lock during a hook, and the loop can be
  waiting for that lock: a wait here would be a deadlock.
- A removed handle or timer is muted at once, so that nothing fires after its removal has returned.
- No garbage is collected inside a hook, because of the same lock: garbage can hold the last
  reference to a connection, whose closing takes the lock. Python collects whenever it creates an
  object, so automatic collection is off, and the loop collects instead, where nothing is locked.

The implementation belongs to the process: libvirt takes one, for ever.
"""

import asyncio
import gc
import itertools
import threading
from collections import deque
from collections.abc import Callable

import libvirtaio

from virtbackup_async.errors import HypervisorError

_LibvirtCallback = Callable[..., None]

_MUTED = 0
_STOPPED_MS = -1
_COLLECT_INTERVAL_S = 1


class _Handle(libvirtaio.FDCallback):  # type: ignore[misc]  # libvirtaio carries no types
    """A watched descriptor; ``event`` 0 means that it is removed and must not fire."""

    def __init__(
        self, impl: "ThreadSafeEventImpl", cb: _LibvirtCallback, opaque: object, fd: int, event: int
    ) -> None:
        super().__init__(impl, cb, opaque, descriptor=None, event=event)
        self.iden = impl.next_id()
        self.fd = fd


class _Timer(libvirtaio.TimeoutCallback):  # type: ignore[misc]  # libvirtaio carries no types
    """A timer that honours a new interval at once, and never fires after its removal."""

    def __init__(self, impl: "ThreadSafeEventImpl", cb: _LibvirtCallback, opaque: object) -> None:
        super().__init__(impl, self._fire, opaque)
        self.iden = impl.next_id()
        self.removed = False
        self._libvirt_cb = cb

    def _fire(self, iden: int, opaque: object) -> None:
        if not self.removed and self.timeout >= 0:
            self._libvirt_cb(iden, opaque)

    def update(self, timeout: int) -> None:
        """Restart with ``timeout`` ms; libvirtaio would first sleep the old interval out."""
        if timeout == self.timeout and self._task is not None:
            return
        super().update(_STOPPED_MS)
        super().update(timeout)


class ThreadSafeEventImpl(libvirtaio.virEventAsyncIOImpl):  # type: ignore[misc]  # no types
    """libvirtaio's implementation with a queue of notes before it (see the module's text)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._ids = itertools.count(1)
        self._loop_thread = threading.get_ident()
        self._notes: deque[Callable[[], None]] = deque()
        self.handed_over = 0
        """The number of notes from other threads."""

    def next_id(self) -> int:
        """Return a number for a handle or a timer; ``next`` of a count is atomic."""
        return next(self._ids)

    def _note(self, work: Callable[[], None]) -> None:
        # After the command's end the loop is closed, and libvirt's own clean-up calls a last hook.
        if self.loop.is_closed():
            return
        self._notes.append(work)
        if threading.get_ident() == self._loop_thread:
            self._drain()
            return
        self.handed_over += 1
        self.loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        while self._notes:
            self._notes.popleft()()

    def _add_handle(self, fd: int, event: int, cb: _LibvirtCallback, opaque: object) -> int:
        handle = _Handle(self, cb, opaque, fd, event)
        self.callbacks[handle.iden] = handle

        def work() -> None:
            handle.descriptor = self.descriptors[fd]
            handle.descriptor.add_handle(handle)
            self._pending_inc()

        self._note(work)
        return handle.iden

    def _update_handle(self, watch: int, event: int) -> None:
        handle = self.callbacks[watch]
        self._note(lambda: handle.update(event) if watch in self.callbacks else None)

    def _remove_handle(self, watch: int) -> int:
        handle = self.callbacks.pop(watch, None)
        if handle is None:
            return -1
        handle.event = _MUTED

        def work() -> None:
            descriptor = handle.descriptor
            descriptor.remove_handle(watch)
            if not descriptor.callbacks:
                del self.descriptors[handle.fd]
            handle.close()

        self._note(work)
        return 0

    def _add_timeout(self, timeout: int, cb: _LibvirtCallback, opaque: object) -> int:
        timer = _Timer(self, cb, opaque)
        self.callbacks[timer.iden] = timer

        def work() -> None:
            self._pending_inc()
            timer.update(timeout)

        self._note(work)
        return timer.iden

    def _update_timeout(self, timer: int, timeout: int) -> None:
        callback = self.callbacks[timer]
        self._note(lambda: None if callback.removed else callback.update(timeout))

    def _remove_timeout(self, timer: int) -> int:
        callback = self.callbacks.pop(timer, None)
        if callback is None:
            return -1
        callback.removed = True
        self._note(callback.close)
        return 0


def _collect(loop: asyncio.AbstractEventLoop) -> None:
    """Collect the garbage that Python would have collected by now; schedule the next time."""
    for generation in (2, 1, 0):
        threshold = gc.get_threshold()[generation]  # 0: never
        if 0 < threshold < gc.get_count()[generation]:
            gc.collect(generation)
            break
    loop.call_later(_COLLECT_INTERVAL_S, _collect, loop)


_registered: ThreadSafeEventImpl | None = None


def register_event_impl() -> ThreadSafeEventImpl:
    """Register the running loop with libvirt, once; call this before the first connection.

    From then on the process collects garbage only while the loop runs, from the loop.

    Raises:
        HypervisorError: another loop is registered already. libvirt cannot take it back.
    """
    global _registered  # noqa: PLW0603 -- libvirt's registration is a fact of the process
    loop = asyncio.get_running_loop()
    if _registered is None:
        _registered = ThreadSafeEventImpl(loop).register()
        gc.disable()
        _collect(loop)
    if _registered.loop is not loop:
        raise HypervisorError("libvirt's events already belong to another event loop")
    return _registered
