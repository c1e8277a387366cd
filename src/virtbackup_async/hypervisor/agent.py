"""The guest agent: asked whether it is there, to freeze, and to thaw.

The agent is a program of the guest, and can fail in any way: it can be missing, silent or slow, it
can refuse, send nonsense, or lie. All of that is a ``QuiesceError``, because none of it is a reason
to have no backup. Only faults that are not the agent's are other errors: a broken connection to
libvirt, or a domain that is gone.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import anyio
import libvirt
import libvirt_qemu

from virtbackup_async import errors
from virtbackup_async.hypervisor.connection import Connection
from virtbackup_async.hypervisor.errors import Attempt, code_of
from virtbackup_async.model import domain_xml

T = TypeVar("T")

AGENT_TIMEOUT_S = 30
"""How long a freeze can take. The guest writes its dirty pages out first."""

AGENT_CONNECT_TIMEOUT_S = 5
AGENT_POLL_INTERVAL_S = 0.2

_STATUS = '{"execute": "guest-fsfreeze-status"}'
_NOT_THE_AGENT = (
    errors.ConnectionLostError,
    errors.DomainGoneError,
    errors.DomainNotFoundError,
    errors.QuiesceError,
)
_STANDING_STILL = {
    libvirt.VIR_DOMAIN_PAUSED: "guest is paused",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "guest is suspended",
    libvirt.VIR_DOMAIN_CRASHED: "guest has crashed",
}


async def prepare(connection: Connection, handle: libvirt.virDomain) -> None:
    """Make sure that the agent answers, and that libvirt does not wait for it for ever.

    A daemon that has just started, like the embedded driver, finds a running guest's agent a moment
    later, so the agent gets ``AGENT_CONNECT_TIMEOUT_S``.

    Raises:
        QuiesceError: there is no agent, it does not answer, or the guest does not run.
    """
    name = handle.name()
    what = Attempt(name, "ask the guest agent")
    state, _reason = await connection.ask(Attempt(name, "read its state"), handle.state)
    if state in _STANDING_STILL:
        # Its agent does not run either; nor does the guest write anything.
        raise errors.QuiesceError(f"{_STANDING_STILL[state]}", domain=name)
    await call(connection, handle, what, handle.agentSetResponseTimeout, AGENT_TIMEOUT_S, 0)
    if not await _has_channel(connection, handle):
        raise errors.QuiesceError("the domain has no channel for the guest agent", domain=name)
    await _call_patiently(connection, handle, what, handle.getTime, 0)


async def freeze(connection: Connection, handle: libvirt.virDomain) -> None:
    """Freeze the guest's file systems until :func:`thaw`; after :func:`prepare`.

    Raises:
        QuiesceError: the guest did not freeze; thaw it, because a part of it can be frozen.
    """
    await call(connection, handle, Attempt(handle.name(), "freeze"), handle.fsFreeze, None, 0)


async def thaw(connection: Connection, handle: libvirt.virDomain) -> int | None:
    """Ask the guest to thaw, whether it is frozen or not; if it is not, that does nothing.

    Returns the number of file systems that were frozen, as the agent reports it; None if no agent
    answers. As in :func:`prepare`, the agent gets some time.
    """
    if await _has_channel(connection, handle):
        with suppress(errors.QuiesceError):
            what = Attempt(handle.name(), "thaw")
            return await _call_patiently(connection, handle, what, handle.fsThaw, None, 0)
    return None


async def is_frozen(connection: Connection, handle: libvirt.virDomain) -> bool:
    """Return whether the agent reports that the guest is frozen; False if it does not answer."""
    what, wait_s = Attempt(handle.name(), "ask whether it is frozen"), AGENT_CONNECT_TIMEOUT_S
    ask = libvirt_qemu.qemuAgentCommand
    with suppress(errors.HypervisorError, ValueError, RecursionError):
        said = await connection.call(what, ask, handle, _STATUS, wait_s, 0)
        return bool(json.loads(said) == {"return": "frozen"})
    return False


async def call(
    connection: Connection,
    handle: libvirt.virDomain,
    what: Attempt,
    function: Callable[..., T],
    *args: object,
) -> T:
    """Make a call that involves the agent: any failure counts as the agent's.

    Raises:
        QuiesceError: it failed.
        DomainGoneError: the domain does not run any more.
        ConnectionLostError: libvirt is gone.
    """
    try:
        return await connection.call_running(what, handle, function, *args)
    except _NOT_THE_AGENT:
        raise
    except errors.HypervisorError as error:
        raise error.as_kind(errors.QuiesceError) from error.__cause__


async def _call_patiently(
    connection: Connection,
    handle: libvirt.virDomain,
    what: Attempt,
    function: Callable[..., T],
    *args: object,
) -> T:
    """Make a call; wait up to ``AGENT_CONNECT_TIMEOUT_S`` until libvirt has found the agent."""
    deadline = anyio.current_time() + AGENT_CONNECT_TIMEOUT_S
    while True:
        try:
            return await call(connection, handle, what, function, *args)
        except errors.QuiesceError as error:
            is_absent = code_of(error) == libvirt.VIR_ERR_AGENT_UNRESPONSIVE
            if not is_absent or anyio.current_time() > deadline:
                raise
        await anyio.sleep(AGENT_POLL_INTERVAL_S)


async def _has_channel(connection: Connection, handle: libvirt.virDomain) -> bool:
    xml = await connection.ask(Attempt(handle.name(), "read"), handle.XMLDesc, 0)
    return domain_xml.has_agent_channel(xml)
