"""Which states of a domain allow what; docs/reference/domain-states.md has the rules as a table.

The checks come before anything is done to a domain. libvirt has more states than running and shut
off, and some that look like one of these are not.
"""

from collections.abc import Iterable, Sequence

from virtbackup_async import errors
from virtbackup_async.engine.ports import DomainPort
from virtbackup_async.model.domain import DomainInfo

SAVED = "the domain is saved: what its memory holds and its disks do not is not in the backup"


async def check_free(domain: DomainPort, devs: Iterable[str]) -> None:
    """Make sure that no job works on a running domain, or on one of its disks.

    libvirt would wait for the job for half a minute, in some calls with the guest frozen, and then
    only report which thread holds its lock.

    Raises:
        HypervisorError: a backup, a migration or a block job runs.
    """
    await domain.prepare_backup()
    busy = sorted((await domain.sources()).devs_with_block_job & set(devs))
    if busy:
        raise block_job_error(domain.name, busy)


def block_job_error(domain: str, devs: Sequence[str]) -> errors.HypervisorError:
    """Return the error for disks of a domain that a block job works on; at least one disk."""
    return errors.HypervisorError(
        f"a block job works on {', '.join(devs)}",
        domain=domain,
        disk=devs[0] if len(devs) == 1 else None,
        hint=f"Wait for it, or end it by `virsh blockjob {domain} {devs[0]} --abort`.",
    )


async def check_still_active(domain: DomainPort, error: errors.VirtBackupError) -> None:
    """Find out whether a backup failed only because its domain stopped.

    Args:
        domain: the domain, which ran when its backup began.
        error: the failure; everything is undone.

    Raises:
        ChangedMeanwhileError: the domain is shut off now, so its disks can be copied offline.
        DomainGoneError: libvirt does not know the domain any more.
    """
    try:
        is_active = (await domain.info()).is_active
    except errors.DomainNotFoundError:
        raise errors.DomainGoneError(
            "it was shut off during its backup, and libvirt knows it no more",
            domain=domain.name,
            hint="If it was migrated or removed on purpose, take it out of its group.",
        ) from error
    except errors.HypervisorError:
        return  # the caller's error stays
    if not is_active:
        raise errors.ChangedMeanwhileError(
            "it was shut off during its backup",
            domain=domain.name,
            hint="Back it up again, now that it is shut off.",
        ) from error


def check_snapshot(info: DomainInfo) -> None:
    """Make sure that QEMU can take a snapshot of a running domain in its state.

    Raises:
        HypervisorError: it cannot.
    """
    if info.is_suspended:
        raise errors.HypervisorError(
            "the guest is suspended, and QEMU takes no snapshot of it",
            domain=info.name,
            hint=f"Wake it up by `virsh dompmwakeup {info.name}`, or use `method: pull`.",
        )


async def check_replaceable(domain: DomainPort, *, remove_saved: bool) -> None:
    """Make sure that nothing uses a domain's images, neither now nor after its next start.

    Args:
        domain: the domain.
        remove_saved: its saved state is about to be removed.

    Raises:
        HypervisorError: it runs; or it is saved, and would resume its old memory on new disks.
    """
    info = await domain.info()
    if info.is_active:
        raise errors.HypervisorError(
            f"{domain.name} is running: its images cannot be replaced",
            hint=f"Shut it down by `virsh shutdown {info.name}`, or restore into a directory.",
        )
    if info.is_saved and not remove_saved:
        raise errors.HypervisorError(
            f"{domain.name} is saved: its next start would go on with its old memory on new disks",
            hint="Start it and shut it down, or give --remove-managed-save, which throws away "
            "what its memory holds.",
        )
