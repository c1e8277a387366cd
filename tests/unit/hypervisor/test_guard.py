"""The guard of a freeze: what becomes of a guest when it fails, is late, dies or has to act.

A real guard program on libvirt's test driver, which knows domains and no agents; where it must
misbehave, a program in its place.
"""

import os
import signal
import sys

import anyio
import libvirt
import pytest

from virtbackup_async.errors import QuiesceError
from virtbackup_async.hypervisor import guard as guard_module
from virtbackup_async.hypervisor.guard import FROZEN, guarded
from virtbackup_async.hypervisor.thaw_guard import ARM

TEST = "test:///default"
READY = r"""
import os
while os.read(0, 1) != b"\n":
    pass
print("ready", flush=True)
"""


class Domain:
    """The domain that is frozen: here it only counts."""

    name = "web"

    def __init__(self):
        connection = libvirt.open(TEST)
        self.uuid = connection.lookupByName("test").UUIDString()
        self.freezes = 0

    async def freeze(self):
        self.freezes += 1


@pytest.fixture
def domain(monkeypatch):
    # A busy machine is no late guard.
    monkeypatch.setattr(guard_module, "START_TIMEOUT_S", 50)
    return Domain()


def guard_of(domain, uri=TEST):
    return guarded(domain, uri, (None, None))


def in_its_place(monkeypatch, code):
    """A program that stands guard in name only."""
    argv = [sys.executable, "-I", "-S", "-c", code]
    monkeypatch.setattr(guard_module, "python_program", lambda *_words: argv)


async def test_a_guest_is_left_alone_while_all_goes_well(domain):
    async with guard_of(domain) as guard:
        await guard.ready()
        await guard.freeze()
        assert await guard.release()
    assert domain.freezes == 1


async def test_without_a_connection_nothing_is_frozen(domain):
    uri = "qemu+unix:///session?socket=/nonexistent/libvirt-sock"
    async with guard_of(domain, uri) as guard:
        with pytest.raises(QuiesceError, match=r"web: no guard to thaw the guest: .*nonexistent"):
            await guard.ready()
    assert domain.freezes == 0


async def test_a_domain_that_is_unknown_to_it_is_not_frozen(domain):
    domain.uuid = "00000000-0000-4000-8000-000000000000"
    async with guard_of(domain) as guard:
        with pytest.raises(QuiesceError, match="Domain not found"):
            await guard.ready()


@pytest.mark.parametrize(
    ("code", "timeout_s", "said"),
    [
        ("", 50, "it is late, or has ended"),
        ("print('no room')", 50, "room"),
        ("print('\\x1bgarbage' * 9999999)", 50, "garbage"),
        ("import time; time.sleep(600)", 0.01, "it is late"),
    ],
)
async def test_a_guard_that_does_not_stand_by_leaves_the_guest_unfrozen(
    domain, monkeypatch, code, timeout_s, said
):
    monkeypatch.setattr(guard_module, "START_TIMEOUT_S", timeout_s)
    monkeypatch.setattr(guard_module, "END_TIMEOUT_S", 0)
    in_its_place(monkeypatch, code)
    async with guard_of(domain) as guard:
        with pytest.raises(QuiesceError, match=said) as raised:
            await guard.ready()
    assert len(raised.value.message) < 1000


async def test_one_that_cannot_be_started_leaves_the_guest_unfrozen(domain, monkeypatch):
    monkeypatch.setattr(guard_module, "python_program", lambda *_words: ["/nonexistent/python"])
    with pytest.raises(QuiesceError, match="no guard to thaw the guest: No such file"):
        async with guard_of(domain):
            pass


@pytest.mark.parametrize("limit_s", [0, 600])
async def test_the_time_alone_judges_where_it_dies(domain, monkeypatch, limit_s):
    monkeypatch.setattr(guard_module, "LIMIT_S", limit_s)
    in_its_place(monkeypatch, READY + "os.read(0, 1)")
    async with guard_of(domain) as guard:
        await guard.ready()
        await guard.freeze()
        assert await guard.release() == (limit_s > 0)


async def test_a_guard_that_had_to_thaw_says_so(domain, monkeypatch):
    verdict = "while os.read(0, 1) != b'r':\n    pass\nprint('thawed', flush=True)"
    in_its_place(monkeypatch, READY + verdict)
    async with guard_of(domain) as guard:
        await guard.ready()
        await guard.freeze()
        assert not await guard.release()


async def test_it_is_armed_again_and_again_while_the_agent_freezes(domain, monkeypatch):
    monkeypatch.setattr(guard_module, "BEAT_INTERVAL_S", 0.001)
    armed_often = anyio.Event()
    armed = []

    async with guard_of(domain) as guard:
        await guard.ready()
        say = guard._companion.say

        async def counting(words):
            armed.append(words)
            if len(armed) == 5:
                armed_often.set()
            await say(words)

        monkeypatch.setattr(guard._companion, "say", counting)
        domain.freeze = armed_often.wait
        await guard.freeze()
        assert await guard.release()
    assert set(armed[:-1]) == {ARM}


async def test_no_signal_of_a_terminal_ends_it(domain):
    async with guard_of(domain) as guard:
        await guard.ready()
        pid = guard._companion.pid
        await guard.freeze()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            os.kill(pid, number)
        assert await guard.release()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_whoever_stops_waits_until_no_guest_is_frozen(domain):
    passed = []

    async def stop():
        await FROZEN.wait_for_none()
        passed.append("stopped")

    async with (
        anyio.create_task_group() as tasks,
        guard_of(domain) as guard,
        guard_of(domain) as other,
    ):
        for each in (guard, other):
            await each.ready()
            await each.freeze()
        tasks.start_soon(stop)
        await guard.release()
        await anyio.lowlevel.checkpoint()
        assert passed == []
        await other.release()
    assert passed == ["stopped"]
