"""The event implementation by its hooks, called as libvirt calls them, from any thread.

tests/integration runs the same module under a real daemon; these tests put the calls into an order.
"""

import asyncio
import gc
import os
import threading
import weakref

import libvirt
import pytest
from anyio import to_thread

from virtbackup_async.errors import HypervisorError
from virtbackup_async.hypervisor import event_loop as module
from virtbackup_async.hypervisor.event_loop import ThreadSafeEventImpl, register_event_impl

READABLE = libvirt.VIR_EVENT_HANDLE_READABLE
WRITABLE = libvirt.VIR_EVENT_HANDLE_WRITABLE
AN_HOUR_MS = 3_600_000


@pytest.fixture
def freed(monkeypatch):
    """The opaque objects that libvirt may free, in order."""
    objects = []
    monkeypatch.setattr(libvirt, "virEventInvokeFreeCallback", objects.append)
    return objects


@pytest.fixture
async def impl(freed):
    return ThreadSafeEventImpl(asyncio.get_running_loop())


@pytest.fixture
async def pipe():
    loop = asyncio.get_running_loop()
    both = os.pipe()
    yield both
    for fd in both:
        loop.remove_reader(fd)  # the next test gets the same numbers
        loop.remove_writer(fd)
        os.close(fd)


class Fired:
    """A callback of libvirt that records its calls and their threads."""

    def __init__(self):
        self.calls = []
        self.threads = set()

    def __call__(self, *args):
        self.calls.append(args)
        self.threads.add(threading.get_ident())


def in_a_thread(work, *args):
    """Let another thread call a hook while the loop waits for it."""
    thread = threading.Thread(target=work, args=args)
    thread.start()
    thread.join()


async def turns(count=5):
    """Let the loop do everything that is due."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_handle_of_another_thread_fires_on_the_loop(impl, pipe):
    reading, writing = pipe
    fired = Fired()
    watch = await to_thread.run_sync(impl._add_handle, reading, READABLE, fired, "opaque")
    os.write(writing, b"x")
    await turns()
    assert fired.calls[0] == (watch, reading, READABLE, "opaque")
    assert fired.threads == {threading.get_ident()}
    assert impl.handed_over == 1


async def test_a_hook_returns_before_the_loop_does_its_work(impl, pipe):
    """libvirt holds its lock in a hook: one that waits for the loop is a deadlock."""
    reading, _ = pipe
    added = threading.Event()

    def add():
        impl._add_handle(reading, READABLE, Fired(), None)
        added.set()

    in_a_thread(add)  # holds the loop up, as a call does that waits for libvirt's lock
    assert added.is_set()
    assert dict(impl.descriptors) == {}
    await turns()
    assert list(impl.descriptors) == [reading]


async def test_a_hook_of_the_loops_thread_works_at_once_after_earlier_ones(impl, pipe):
    reading, writing = pipe
    first, second = Fired(), Fired()
    in_a_thread(impl._add_handle, reading, READABLE, first, None)
    impl._add_handle(reading, READABLE, second, None)
    assert impl.handed_over == 1
    assert len(impl.descriptors[reading].callbacks) == 2
    os.write(writing, b"x")
    await turns(2)
    assert first.calls
    assert second.calls


async def test_a_handle_fires_for_the_events_that_it_waits_for(impl, pipe):
    _, writing = pipe
    fired = Fired()
    watch = impl._add_handle(writing, READABLE, fired, None)
    await turns()
    assert fired.calls == []
    await to_thread.run_sync(impl._update_handle, watch, WRITABLE)
    await turns()
    assert fired.calls[0] == (watch, writing, WRITABLE, None)
    impl._update_handle(watch, 0)
    fired.calls.clear()
    await turns()
    assert fired.calls == []


async def test_a_removed_handle_never_fires_again_and_is_freed_once(impl, pipe, freed):
    reading, writing = pipe
    fired = Fired()
    watch = impl._add_handle(reading, READABLE, fired, "opaque")
    os.write(writing, b"x")
    in_a_thread(
        impl._remove_handle, watch
    )  # the descriptor is ready, and the loop has not yet heard of the removal
    await turns()
    assert fired.calls == []
    assert freed == ["opaque"]
    assert dict(impl.descriptors) == {}
    assert impl.is_idle()
    assert impl._remove_handle(watch) == -1
    await turns()
    assert freed == ["opaque"]


async def test_a_removed_handle_does_not_fire_in_the_turn_of_its_removal(impl, pipe):
    """The loop has found it ready, and will call it; libvirt has freed what it would touch."""
    reading, writing = pipe
    os.write(writing, b"x")
    others = [impl._add_handle(reading, READABLE, Fired(), None) for _ in range(2)]
    fired = []

    def fire(watch, *_args):
        fired.append(watch)
        for other in others:
            if other != watch:
                in_a_thread(impl._remove_handle, other)

    for watch in others:
        impl.callbacks[watch].cb = fire
    await turns()
    assert set(fired) == {others[0]}


async def test_a_removed_timer_does_not_fire_in_the_turn_of_its_removal(impl):
    fired = []

    def fire(timer, _opaque):
        fired.append(timer)
        in_a_thread(impl._remove_timeout, second)

    first = impl._add_timeout(0, fire, None)
    second = impl._add_timeout(0, fire, None)
    await turns()
    assert set(fired) == {first}
    impl._remove_timeout(first)


async def test_a_descriptor_number_that_is_used_again_belongs_to_its_new_handle(impl, pipe):
    reading, writing = pipe
    old, new = Fired(), Fired()
    watch = impl._add_handle(reading, READABLE, old, None)

    def exchange():
        impl._remove_handle(watch)
        impl._add_handle(reading, READABLE, new, None)

    await to_thread.run_sync(exchange)
    os.write(writing, b"x")
    await turns()
    assert old.calls == []
    assert new.calls
    assert len(impl.descriptors[reading].callbacks) == 1


async def test_one_of_two_handles_of_a_descriptor_goes_and_the_other_stays(impl, pipe):
    reading, writing = pipe
    gone, stays = Fired(), Fired()
    watch = impl._add_handle(reading, READABLE, gone, None)
    impl._add_handle(reading, READABLE, stays, None)
    assert impl._remove_handle(watch) == 0
    os.write(writing, b"x")
    await turns()
    assert gone.calls == []
    assert stays.calls


async def test_an_update_that_comes_after_the_removal_does_nothing(impl, pipe):
    """Two threads: one has looked a handle up when the other removes it."""
    reading, writing = pipe
    fired = Fired()
    watch = impl._add_handle(reading, 0, fired, None)

    def both():
        impl._update_handle(watch, READABLE)
        impl._remove_handle(watch)

    in_a_thread(both)
    os.write(writing, b"x")
    await turns()
    assert fired.calls == []
    assert dict(impl.descriptors) == {}


async def test_a_timer_of_another_thread_fires_on_the_loop_until_it_is_stopped(impl):
    fired = Fired()
    timer = await to_thread.run_sync(impl._add_timeout, 0, fired, "opaque")
    await turns()
    assert fired.calls[0] == (timer, "opaque")
    assert fired.threads == {threading.get_ident()}
    await to_thread.run_sync(impl._update_timeout, timer, -1)
    await turns()
    fired.calls.clear()
    await turns()
    assert fired.calls == []


async def test_a_timer_takes_its_new_interval_at_once(impl):
    fired = Fired()
    timer = impl._add_timeout(AN_HOUR_MS, fired, None)
    await turns()
    assert fired.calls == []
    impl._update_timeout(timer, 0)
    await turns()
    assert fired.calls
    impl._remove_timeout(timer)


async def test_a_timer_that_gets_the_interval_that_it_has_goes_on(impl):
    """libvirt's keepalive repeats it at every message: the timer must not start anew each time."""
    timer = impl._add_timeout(AN_HOUR_MS, Fired(), None)
    running = impl.callbacks[timer]._task
    impl._update_timeout(timer, AN_HOUR_MS)
    assert impl.callbacks[timer]._task is running
    impl._update_timeout(timer, AN_HOUR_MS + 1)
    assert impl.callbacks[timer]._task is not running
    impl._remove_timeout(timer)


async def test_a_timer_that_waits_for_nothing_starts_with_its_first_interval(impl):
    fired = Fired()
    timer = impl._add_timeout(-1, fired, None)
    await turns()
    assert fired.calls == []
    impl._update_timeout(timer, 0)
    await turns()
    assert fired.calls
    impl._remove_timeout(timer)


async def test_a_removed_timer_never_fires_again_and_is_freed_once(impl, freed):
    fired = Fired()
    timer = impl._add_timeout(0, fired, "opaque")

    def both():
        impl._remove_timeout(timer)
        assert impl._remove_timeout(timer) == -1

    in_a_thread(both)  # the timer is due, and the loop has not yet heard of the removal
    await turns()
    assert fired.calls == []
    assert freed == ["opaque"]
    assert impl.is_idle()


async def test_a_timer_that_removes_itself_fires_once(impl, freed):
    calls = []

    def fire(iden, _opaque):
        calls.append(iden)
        impl._remove_timeout(iden)

    timer = impl._add_timeout(0, fire, "opaque")
    await turns()
    assert calls == [timer]
    assert freed == ["opaque"]


async def test_an_update_of_a_timer_that_comes_after_its_removal_does_nothing(impl):
    fired = Fired()
    timer = impl._add_timeout(-1, fired, None)

    def both():
        impl._update_timeout(timer, 0)
        impl._remove_timeout(timer)

    in_a_thread(both)
    await turns()
    assert fired.calls == []


async def test_handles_and_timers_have_numbers_of_their_own(impl, pipe):
    reading, _ = pipe
    numbers = [
        impl._add_handle(reading, READABLE, Fired(), None),
        impl._add_timeout(-1, Fired(), None),
        impl._add_handle(reading, READABLE, Fired(), None),
    ]
    assert len(set(numbers)) == 3
    assert min(numbers) > 0  # libvirt takes a negative number for an error


async def test_libvirts_last_hooks_come_after_the_end_of_the_loop(pipe):
    reading, _ = pipe
    loop = asyncio.new_event_loop()
    late = ThreadSafeEventImpl(loop)
    loop.close()
    watch = late._add_handle(reading, READABLE, Fired(), None)
    late._update_handle(watch, WRITABLE)
    assert late._remove_handle(watch) == 0
    timer = late._add_timeout(0, Fired(), None)
    late._update_timeout(timer, 1)
    assert late._remove_timeout(timer) == 0
    assert late.handed_over == 0


@pytest.fixture
def unregistered(monkeypatch):
    """A process that has registered no loop yet; its collection of garbage is put back."""
    registered = []

    def register(impl):
        registered.append(impl)
        return impl

    monkeypatch.setattr(module, "_registered", None)
    monkeypatch.setattr(ThreadSafeEventImpl, "register", register)
    was_enabled, thresholds = gc.isenabled(), gc.get_threshold()
    yield registered
    gc.set_threshold(*thresholds)
    if was_enabled:
        gc.enable()


async def test_a_loop_is_registered_once_and_collects_from_then_on(unregistered):
    first = register_event_impl()
    assert register_event_impl() is first
    assert unregistered == [first]
    assert first.loop is asyncio.get_running_loop()
    assert not gc.isenabled()


async def test_another_loop_is_refused(unregistered):
    register_event_impl()

    async def register():
        register_event_impl()

    with pytest.raises(HypervisorError, match="belong to another event loop"):
        await to_thread.run_sync(asyncio.run, register())
    assert len(unregistered) == 1


class Scheduled:
    """A loop that keeps the next collection for the test."""

    def __init__(self):
        self.later = []

    def call_later(self, delay_s, *work):
        self.later.append((delay_s, *work))


class Circle:
    """Garbage that only a collection frees."""

    def __init__(self):
        self.me = self


def collections(thresholds, young=0):
    """Collect as the loop does, with these thresholds; return the generations collected.

    ``young`` collections of the youngest generation came before.
    """
    generations, loop = [], Scheduled()

    def note(phase, info):
        if phase == "start":
            generations.append(info["generation"])

    gc.collect()
    gc.disable()
    for _ in range(young):
        gc.collect(0)
    keep = [Circle() for _ in range(100)]
    gc.set_threshold(*thresholds)
    gc.callbacks.append(note)
    try:
        module._collect(loop)
    finally:
        gc.callbacks.remove(note)
    assert len(keep) == 100
    assert loop.later == [(module._COLLECT_INTERVAL_S, module._collect, loop)]
    return generations


@pytest.mark.usefixtures("unregistered")
@pytest.mark.parametrize(
    ("thresholds", "young", "generations"),
    [
        ((50, 10, 10), 0, [0]),
        ((50, 10, 10), 11, [1]),
        ((50, 0, 10), 11, [0]),
        ((100_000, 10, 10), 0, []),
        ((0, 10, 10), 0, []),
        ((0, 0, 0), 0, []),
    ],
)
def test_the_loop_collects_what_python_would_have_collected(thresholds, young, generations):
    assert collections(thresholds, young) == generations


@pytest.mark.usefixtures("unregistered")
def test_garbage_that_a_hook_leaves_is_freed_by_the_loop():
    gc.collect()
    gc.disable()
    freed = []
    weakref.finalize(Circle(), freed.append, True)
    keep = [Circle() for _ in range(100)]
    gc.set_threshold(50, 10, 10)
    module._collect(Scheduled())
    assert freed == [True]
    assert len(keep) == 100
