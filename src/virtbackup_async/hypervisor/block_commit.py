"""Active commit and pivot of one disk: QEMU writes its overlay's data into the backing file.

::

    guest ──> overlay ──> base        blockCommit(ACTIVE | SHALLOW): copy overlay into base,
    guest ──> overlay ══> base        mirror new writes; READY when both are equal
    guest ─────────────> base         blockJobAbort(PIVOT): the guest writes to base again

The wait for READY uses events *and* polling, because an event can be lost with its connection. A
job that fails, is cancelled or makes no progress is an error; no wait is without an end. Source:
libvirt's virDomainBlockCommit, virDomainGetBlockJobInfo.
"""

from collections.abc import Awaitable, Callable

import anyio
import libvirt

from virtbackup_async.errors import BlockJobError, DomainGoneError, HypervisorError
from virtbackup_async.hypervisor.block_jobs import BlockJobWatch
from virtbackup_async.hypervisor.connection import Connection
from virtbackup_async.hypervisor.errors import Attempt, code_of

POLL_INTERVAL_S = 0.5
EVENT_DELAY_S = 2
STALL_TIMEOUT_S = 300
PIVOT_RETRIES = 20

_COMMIT_FLAGS = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW


async def commit_and_pivot(
    connection: Connection,
    domain: libvirt.virDomain,
    dev: str,
    before_pivot: Callable[[], Awaitable[None]],
    *,
    resume: bool = False,
) -> None:
    """Bring a running domain's disk back from its overlay to the backing file.

    Args:
        connection: the connection that ``domain`` belongs to.
        domain: libvirt's object of the running domain.
        dev: the disk's target.
        before_pivot: awaited when the image has all data of the overlay.
        resume: the disk's commit job runs already, left by a killed backup; do not start one.

    Raises:
        BlockJobError: the job failed, was cancelled, stalled or could not be pivoted.
        DomainGoneError: the domain stopped in the meantime.
    """
    what = Attempt(domain.name(), f"commit {dev}")
    with connection.block_jobs.watch(domain.UUIDString(), dev) as watch:
        if not resume:
            await connection.call_running(
                what, domain, domain.blockCommit, dev, None, None, 0, _COMMIT_FLAGS
            )
        await _wait_until_ready(connection, domain, dev, watch, what)
        await before_pivot()
        for _ in range(PIVOT_RETRIES):
            if await _pivoted(connection, domain, dev, what):
                return
            await watch.wait(POLL_INTERVAL_S)
            await _wait_until_ready(connection, domain, dev, watch, what)
        raise BlockJobError(
            f"{what.doing}: was ready, but could not be pivoted", domain=what.domain
        )


async def _pivoted(
    connection: Connection, domain: libvirt.virDomain, dev: str, what: Attempt
) -> bool:
    """Pivot; False if QEMU answers that the job is not ready."""
    flags = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
    try:
        await connection.call_running(what, domain, domain.blockJobAbort, dev, flags)
    except HypervisorError as error:
        if code_of(error) == libvirt.VIR_ERR_BLOCK_COPY_ACTIVE:
            return False
        raise
    return True


async def _wait_until_ready(
    connection: Connection,
    domain: libvirt.virDomain,
    dev: str,
    watch: BlockJobWatch,
    what: Attempt,
) -> None:
    last: tuple[int, int] | None = None
    with anyio.CancelScope() as stall:
        stall.deadline = anyio.current_time() + STALL_TIMEOUT_S
        while True:
            _raise_if_over(watch, what)
            job = await connection.call_running(what, domain, domain.blockJobInfo, dev, 0)
            if not job:
                # Only an event says how the job ended, and it can arrive later.
                with anyio.move_on_after(EVENT_DELAY_S):
                    while not (watch.ended or watch.domain_stopped):
                        await watch.wait(EVENT_DELAY_S)
                _raise_if_over(watch, what)
                raise BlockJobError(
                    f"{what.doing}: the job vanished before it was ready", domain=what.domain
                )
            position = (job["cur"], job["end"])
            # libvirt reports cur == end only once QEMU reports that the job is ready.
            if watch.ready or position[0] == position[1]:
                return
            if position != last:
                last = position
                stall.deadline = anyio.current_time() + STALL_TIMEOUT_S
            await watch.wait(POLL_INTERVAL_S)
    raise BlockJobError(
        f"{what.doing}: no progress for {STALL_TIMEOUT_S} s",
        domain=what.domain,
        hint="Look at the storage of the domain's image.",
    )


def _raise_if_over(watch: BlockJobWatch, what: Attempt) -> None:
    if watch.ended is not None:
        raise BlockJobError(
            f"{what.doing}: the block job {watch.ended}",
            domain=what.domain,
            hint="QEMU's log of the domain says why; often the image's storage is full.",
        )
    if watch.domain_stopped:
        raise DomainGoneError(f"{what.doing}: the domain stopped meanwhile", domain=what.domain)
