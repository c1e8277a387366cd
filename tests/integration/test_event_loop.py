"""libvirt's events on asyncio while many threads make calls.

Everything here is real: a libvirt daemon over its socket, whose RPC client updates the watched
handles from whichever thread makes a call.
"""

import asyncio
import gc
import threading
import weakref
from contextlib import asynccontextmanager

import anyio
import libvirt
import pytest
from anyio import to_thread

from virtbackup_async.hypervisor import open_hypervisor
from virtbackup_async.hypervisor.event_loop import ThreadSafeEventImpl, register_event_impl

THREADS = 8
CALLS = 150


@pytest.fixture
async def debug_loop():
    """Asyncio's debug mode: a call_soon or add_reader from a wrong thread raises."""
    loop = asyncio.get_running_loop()
    errors = []
    before = loop.get_debug()
    loop.set_debug(enabled=True)
    loop.set_exception_handler(lambda _loop, context: errors.append(context))
    yield errors
    loop.set_exception_handler(None)
    loop.set_debug(before)


@asynccontextmanager
async def open_connection(uri):
    register_event_impl()
    connection = await to_thread.run_sync(libvirt.open, uri)
    yield connection
    await to_thread.run_sync(connection.close)


def scratch_xml(name):
    return (
        f"<domain type='qemu'><name>{name}</name><memory>4096</memory>"
        "<os><type>hvm</type></os></domain>"
    )


async def test_no_event_is_lost_while_threads_call(daemon, debug_loop):
    seen = []
    loop_thread = threading.get_ident()
    foreign = []

    def on_lifecycle(_connection, domain, event, _detail, _opaque):
        if threading.get_ident() != loop_thread:
            foreign.append(domain.name())
        seen.append((domain.name(), event))

    async with open_connection(daemon.uri) as connection:
        callback = connection.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_lifecycle, None
        )

        def churn(number):
            for turn in range(CALLS):
                domain = connection.defineXML(scratch_xml(f"churn-{number}-{turn}"))
                domain.XMLDesc(0)
                domain.undefine()

        async with anyio.create_task_group() as tasks:
            for number in range(THREADS):
                tasks.start_soon(to_thread.run_sync, churn, number)
        expected = {
            (f"churn-{number}-{turn}", event)
            for number in range(THREADS)
            for turn in range(CALLS)
            for event in (libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED)
        }
        with anyio.fail_after(20):
            while len(seen) < len(expected):
                await anyio.sleep(0.01)
        connection.domainEventDeregisterAny(callback)

    assert set(seen) == expected
    assert len(seen) == len(expected)
    assert foreign == []
    assert debug_loop == []
    assert register_event_impl().handed_over > THREADS * CALLS


async def test_the_loop_stays_responsive_while_threads_call(daemon, debug_loop):
    """No hook waits for the loop, and none makes the loop wait for libvirt's lock."""
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await anyio.sleep(0)
            ticks += 1

    async with open_hypervisor(daemon.uri) as hypervisor, anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        for _ in range(50):
            await hypervisor.domain_names()
        assert ticks > 50
        tasks.cancel_scope.cancel()
    assert debug_loop == []


async def test_many_connections_open_and_close_side_by_side(daemon, debug_loop):
    """Descriptor numbers are used again at once; each connection must still get its answers."""

    async def use(number):
        for _ in range(5):
            async with open_hypervisor(daemon.uri) as hypervisor:
                assert await hypervisor.is_alive(), number
                await hypervisor.domain_names()

    watched = register_event_impl().callbacks
    before = len(watched)
    async with anyio.create_task_group() as tasks:
        for number in range(THREADS):
            tasks.start_soon(use, number)
    with anyio.fail_after(20):
        while len(watched) > before:
            await anyio.sleep(0.01)
    assert debug_loop == []


async def test_a_second_loop_is_refused():
    register_event_impl()

    def other_loop():
        async def register():
            register_event_impl()

        with pytest.raises(Exception, match="another event loop"):
            asyncio.run(register())

    await to_thread.run_sync(other_loop)


class Loop:
    """Something that only a collection frees."""

    def __init__(self):
        self.me = self


async def test_garbage_is_collected_by_the_loop_and_never_inside_a_hook(daemon, monkeypatch):
    """libvirt holds a lock there, which the end of a connection takes as well."""
    inside, collected = threading.local(), []
    note = ThreadSafeEventImpl._note

    def note_with_garbage(self, work):
        inside.hook = True
        keep = [Loop() for _ in range(2 * gc.get_threshold()[0])]
        note(self, work)
        inside.hook = False
        hooks.append(len(keep))

    def on_collection(phase, _info):
        if phase == "start":
            collected.append(getattr(inside, "hook", False))

    hooks = []
    register_event_impl()
    monkeypatch.setattr(ThreadSafeEventImpl, "_note", note_with_garbage)
    gc.callbacks.append(on_collection)
    try:
        freed = anyio.Event()
        weakref.finalize(Loop(), freed.set)
        async with open_connection(daemon.uri) as connection:
            await to_thread.run_sync(connection.listAllDomains, 0)
        with anyio.fail_after(60):
            await freed.wait()
    finally:
        gc.callbacks.remove(on_collection)
    assert len(hooks) > 3
    assert collected
    assert not any(collected)
