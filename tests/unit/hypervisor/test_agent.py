"""The guest agent: whatever it does wrong is a QuiesceError, and nothing else is."""

import libvirt
import libvirt_qemu
import pytest

from virtbackup_async.errors import ConnectionLostError, DomainGoneError, QuiesceError
from virtbackup_async.hypervisor import agent
from virtbackup_async.hypervisor.connection import Connection

CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
DOMAIN = "<domain><devices>{}</devices></domain>"


def said(code, domain=libvirt.VIR_FROM_QEMU):
    error = libvirt.libvirtError("call failed")
    error.err = (code, domain, "words", 2, None, None, None, 0, 0)
    return error


ABSENT = said(libvirt.VIR_ERR_AGENT_UNRESPONSIVE)
REFUSED = said(libvirt.VIR_ERR_OPERATION_FAILED)
LOST = said(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC)


class Handle:
    """libvirt's domain; ``errors`` are raised by a method, one a call."""

    def __init__(self, *, channel=CHANNEL, state=libvirt.VIR_DOMAIN_RUNNING):
        self.xml = DOMAIN.format(channel)
        self.now = (state, 0)
        self.active = 1
        self.errors = {}
        self.calls = []

    def _called(self, name, result):
        self.calls.append(name)
        if self.errors.get(name):
            raise self.errors[name].pop(0)
        return result

    def name(self):
        return "web"

    def state(self):
        return self.now

    def isActive(self):  # noqa: N802 -- libvirt's name
        return self.active

    def XMLDesc(self, _flags):  # noqa: N802 -- libvirt's name
        return self.xml

    def agentSetResponseTimeout(self, timeout_s, _flags):  # noqa: N802 -- libvirt's name
        assert timeout_s == agent.AGENT_TIMEOUT_S
        return self._called("timeout", 0)

    def getTime(self, _flags):  # noqa: N802 -- libvirt's name
        return self._called("getTime", {})

    def fsFreeze(self, _mounts, _flags):  # noqa: N802 -- libvirt's name
        return self._called("freeze", 2)

    def fsThaw(self, _mounts, _flags):  # noqa: N802 -- libvirt's name
        return self._called("thaw", 2)


@pytest.fixture
def connection(monkeypatch):
    monkeypatch.setattr(agent, "AGENT_POLL_INTERVAL_S", 0)
    return Connection(None, lambda: None)


async def test_an_agent_that_answers_is_ready(connection):
    handle = Handle()
    await agent.prepare(connection, handle)
    assert handle.calls == ["timeout", "getTime"]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (libvirt.VIR_DOMAIN_PAUSED, "paused"),
        (libvirt.VIR_DOMAIN_PMSUSPENDED, "suspended"),
        (libvirt.VIR_DOMAIN_CRASHED, "crashed"),
    ],
)
async def test_a_guest_that_does_not_run_is_not_asked(connection, state, reason):
    handle = Handle(state=state)
    with pytest.raises(QuiesceError, match=reason):
        await agent.prepare(connection, handle)
    assert handle.calls == []


async def test_without_a_channel_nobody_waits_for_an_agent(connection):
    handle = Handle(channel="")
    with pytest.raises(QuiesceError, match="no channel for the guest agent"):
        await agent.prepare(connection, handle)
    assert await agent.thaw(connection, handle) is None
    assert handle.calls == ["timeout"]


async def test_an_agent_that_libvirt_finds_a_moment_later_is_waited_for(connection):
    handle = Handle()
    handle.errors = {"getTime": [ABSENT, ABSENT], "thaw": [ABSENT]}
    await agent.prepare(connection, handle)
    assert await agent.thaw(connection, handle) == 2


async def test_an_agent_that_stays_away_is_given_up(connection, monkeypatch):
    monkeypatch.setattr(agent, "AGENT_CONNECT_TIMEOUT_S", -1)
    handle = Handle()
    handle.errors = {"getTime": [ABSENT], "thaw": [ABSENT]}
    with pytest.raises(QuiesceError, match="ask the guest agent"):
        await agent.prepare(connection, handle)
    assert await agent.thaw(connection, handle) is None


async def test_an_agent_that_refuses_is_not_asked_again(connection):
    handle = Handle()
    handle.errors = {"getTime": [REFUSED]}
    with pytest.raises(QuiesceError):
        await agent.prepare(connection, handle)
    assert handle.calls.count("getTime") == 1


@pytest.mark.parametrize(
    ("error", "active", "kind"),
    [(REFUSED, 1, QuiesceError), (REFUSED, 0, DomainGoneError), (LOST, 1, ConnectionLostError)],
)
async def test_only_what_is_the_agents_fault_counts_as_such(connection, error, active, kind):
    handle = Handle()
    handle.errors, handle.active = {"freeze": [error]}, active
    with pytest.raises(kind) as raised:
        await agent.freeze(connection, handle)
    assert type(raised.value) is kind
    assert raised.value.message.startswith("web: freeze: ")


@pytest.mark.parametrize(
    ("answer", "frozen"),
    [
        ('{"return": "frozen"}', True),
        ('{"return": "thawed"}', False),
        ("nonsense", False),
        ("[" * 100_000, False),
        (REFUSED, False),
    ],
)
async def test_only_an_agent_that_says_so_has_a_frozen_guest(
    connection, monkeypatch, answer, frozen
):
    def command(_handle, text, _timeout_s, _flags):
        assert "guest-fsfreeze-status" in text
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", command)
    assert await agent.is_frozen(connection, Handle()) is frozen
