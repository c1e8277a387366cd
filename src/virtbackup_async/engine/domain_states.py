"""What the state of a domain allows: the rules that docs/reference/domain-states.md has as a table.

Asked by whoever touches a domain, before the deed. libvirt knows more states than running and shut
off, and some that pass for one of the two are neither.
"""

from collections.abc import Iterable, Sequence

from virtbackup_async.engine.ports import DomainPort
from virtbackup_async.errors import (
    ChangedMeanwhileError,
    DomainGoneError,
    DomainNotFoundError,
    HypervisorError,
    VirtBackupError,
)
from virtbackup_async.model.domain import DomainInfo

SAVED = "the domain is saved: what its memory holds and its disks do not is not in the backup"


async def check_free(domain: DomainPort, devs: Iterable[str]) -> None:
    """Make sure that no job works on a running domain, or on one of its disks.

    libvirt would wait for one half a minute, some with the guest frozen, and would then say only
    who holds its lock.

    Raises:
        HypervisorError: a backup, a migration or a block job runs.
    """
    await domain.prepare_backup()
    busy = sorted((await domain.sources()).devs_with_block_job & set(devs))
    if busy:
        raise block_job_error(domain.name, busy)


def block_job_error(domain: str, devs: Sequence[str]) -> HypervisorError:
    """Say that somebody's block job works on disks of a domain; there is one at least."""
    return HypervisorError(
        f"a block job works on {', '.join(devs)}",
        domain=domain,
        hint=f"Wait for it, or end it by `virsh blockjob {domain} {devs[0]} --abort`.",
    )


async def check_still_active(domain: DomainPort, error: VirtBackupError) -> None:
    """Find out whether what went wrong with a running domain is only that it runs no more.

    Args:
        domain: it ran when its backup began.
        error: what came of that, all of it being undone.

    Raises:
        ChangedMeanwhileError: it is shut off now: its disks stand still by themselves.
        DomainGoneError: libvirt does not know it any more.
    """
    try:
        is_active = (await domain.info()).is_active
    except DomainNotFoundError:
        raise DomainGoneError(
            "it was shut off during its backup, and libvirt knows it no more", domain=domain.name
        ) from error
    except HypervisorError:
        return  # then the error stays what it is
    if not is_active:
        raise ChangedMeanwhileError(
            "it was shut off during its backup", domain=domain.name
        ) from error


def check_snapshot(info: DomainInfo) -> None:
    """Make sure that QEMU can take a snapshot of a running domain.

    Raises:
        HypervisorError: it cannot in this state.
    """
    if info.is_suspended:
        raise HypervisorError(
            "the guest is suspended, and QEMU takes no snapshot of it",
            domain=info.name,
            hint=f"Wake it up by `virsh dompmwakeup {info.name}`, or use `method: pull`.",
        )


async def check_replaceable(domain: DomainPort, *, remove_saved: bool) -> None:
    """Make sure that nothing uses a domain's images, now or by what its next start resumes.

    Args:
        domain: which.
        remove_saved: a saved state of it is about to be removed.

    Raises:
        HypervisorError: it runs; or it is saved, and would go on with its old memory on new disks.
    """
    info = await domain.info()
    if info.is_active:
        raise HypervisorError(
            f"{domain.name} is running: its images cannot be replaced",
            hint="Shut it down first, or restore into a directory.",
        )
    if info.is_saved and not remove_saved:
        raise HypervisorError(
            f"{domain.name} is saved: its next start would go on with its old memory on new disks",
            hint="Start it and shut it down, or give --remove-managed-save, which throws away "
            "what its memory holds.",
        )
