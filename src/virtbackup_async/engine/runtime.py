"""What the work of one command shares: built once, handed down to every task."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from msgspec import Struct, field

from virtbackup_async.config.schema import Config
from virtbackup_async.engine.host_state import Host, locks_of, this_host
from virtbackup_async.engine.ports import HypervisorPort
from virtbackup_async.events import Emit
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.rate_limit import RateLimit
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares

MIB = 1024 * 1024


class Environment(Struct, frozen=True):
    """The ports and the limits of one run.

    Attributes:
        hypervisor: the connection to libvirt.
        host: what this host knows by itself.
        emit: where events go.
        now: the wall clock, aware, in local time.
        buffers: the memory that disk data passes through.
        cpu: what all disks share for their compression.
        run_limit: how fast images are read, all together; None: as fast as it goes.
        group_limits: the same for the groups that have a limit, by name.
        parallel_disks: how many disks of one domain are copied at once.
        lock_directory: where the locks on domains lie.
        wait_s: how long to wait for a domain that somebody else works on.
    """

    hypervisor: HypervisorPort
    host: Host
    emit: Emit
    now: Callable[[], datetime]
    buffers: BufferPool
    cpu: CpuShares
    parallel_disks: int
    lock_directory: Path
    wait_s: float = 0
    run_limit: RateLimit | None = None
    group_limits: Mapping[str, RateLimit] = field(default_factory=dict)

    def limits_of(self, group: str) -> tuple[RateLimit, ...]:
        """Return the limits that the copies of a group keep to: the run's, and its own."""
        limits = (self.run_limit, self.group_limits.get(group))
        return tuple(limit for limit in limits if limit is not None)


def build_environment(
    config: Config, hypervisor: HypervisorPort, emit: Emit, *, wait_s: float = 0
) -> Environment:
    """Make what a run shares, by the limits of the configuration and of the machine."""
    return Environment(
        hypervisor=hypervisor,
        host=this_host(config),
        emit=emit,
        now=lambda: datetime.now().astimezone(),
        buffers=BufferPool(config.buffers_mib * MIB),
        cpu=CpuShares(),
        parallel_disks=config.parallel_disks,
        lock_directory=locks_of(config),
        wait_s=wait_s,
        run_limit=RateLimit(config.rate_limit) if config.rate_limit else None,
        group_limits={
            name: RateLimit(group.rate_limit)
            for name, group in config.groups.items()
            if group.rate_limit
        },
    )
