"""Finding libvirt again in the middle of an undo."""

import anyio

from virtbackup_async.engine.ports import HypervisorPort
from virtbackup_async.errors import ConnectionFailedError

RECONNECT_TIMEOUT_S = 30
RECONNECT_INTERVAL_S = 1


async def reconnect(hypervisor: HypervisorPort) -> None:
    """Open a broken connection again; wait for a daemon that restarts.

    Raises:
        ConnectionFailedError: libvirt did not answer in time.
    """
    deadline = anyio.current_time() + RECONNECT_TIMEOUT_S
    while True:
        try:
            await hypervisor.reconnect()
        except ConnectionFailedError:
            if anyio.current_time() > deadline:
                raise
        else:
            return
        await anyio.sleep(RECONNECT_INTERVAL_S)
