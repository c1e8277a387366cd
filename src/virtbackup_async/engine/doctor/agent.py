"""The guest agent: whether it answers, and, if asked for, how long a freeze takes.

A freeze stops every write in the guest until the thaw, so doctor freezes only if asked to.
"""

import anyio

from virtbackup_async.engine.locks import hold_domain
from virtbackup_async.engine.ports import DomainPort
from virtbackup_async.errors import HypervisorError, LockHeldError
from virtbackup_async.events import Finding, Level
from virtbackup_async.host.interface import DomainLocks
from virtbackup_async.model.domain import DomainInfo

CHECK = "agent"
SLOW_FREEZE_MS = 5000
THAW_TIMEOUT_S = 60


async def check_agent(
    domain: DomainPort, info: DomainInfo, *, quiesce: bool, freeze_locks: DomainLocks | None
) -> list[Finding]:
    """Ask the agent of a domain that is to be quiesced whether it answers, or to freeze.

    Args:
        domain: the domain.
        info: the facts about it.
        quiesce: whether its backups are to be quiesced.
        freeze_locks: the locks, to freeze the guest for a moment; None to ask only.
    """
    if not quiesce:
        return []
    if not info.is_active:
        return [
            Finding(
                Level.INFO,
                CHECK,
                domain.name,
                "shut off, so there is nothing to freeze",
                code="shut_off",
            )
        ]
    try:
        await domain.prepare_quiesce()
    except HypervisorError as error:
        # An agent that has frozen its guest answers few other commands.
        if await domain.is_frozen():
            return [_frozen(domain)]
        return [_silent(domain, error)]
    if freeze_locks is None:
        return [
            Finding(Level.OK, CHECK, domain.name, "the guest agent answers", code="agent_answers")
        ]
    return [await _freeze(domain, freeze_locks)]


def _frozen(domain: DomainPort) -> Finding:
    message = "the guest's file systems are frozen: its programs stand still as soon as they write"
    advice = f"Thaw it: virsh domfsthaw {domain.name}"
    return Finding(Level.PROBLEM, CHECK, domain.name, message, advice, code="guest_frozen")


def _silent(domain: DomainPort, error: HypervisorError) -> Finding:
    reason = error.within(domain.name)
    message = f"backups will not be quiesced: {reason}"
    advice = "Install qemu-guest-agent in the guest, or write `quiesce: false`."
    return Finding(Level.WARNING, CHECK, domain.name, message, advice, code="agent_silent")


async def _freeze(domain: DomainPort, locks: DomainLocks) -> Finding:
    try:
        async with hold_domain(locks, domain.name, domain.uuid, "doctor --freeze"):
            frozen_ms = await _frozen_ms(domain)
    except LockHeldError as error:
        return Finding(
            Level.INFO, CHECK, domain.name, f"not frozen: {error.message}", code="not_frozen"
        )
    except HypervisorError as error:
        return _silent(domain, error)
    message = f"froze and thawed in {frozen_ms} ms"
    if frozen_ms < SLOW_FREEZE_MS:
        return Finding(Level.OK, CHECK, domain.name, message, code="freeze_time")
    advice = "Its programs stand still for as long at each backup: look at what the guest writes."
    return Finding(Level.WARNING, CHECK, domain.name, message, advice, code="freeze_slow")


async def _frozen_ms(domain: DomainPort) -> int:
    async with domain.guarded() as guard:
        await guard.ready()
        began_s = ended_s = anyio.current_time()
        try:
            await guard.freeze()
        finally:
            # Also if the freeze failed or was cancelled: some file systems may be frozen.
            with anyio.fail_after(THAW_TIMEOUT_S, shield=True):
                await domain.thaw()
                ended_s = anyio.current_time()
                await guard.release()
        return round((ended_s - began_s) * 1000)
