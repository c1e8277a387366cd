"""Checkpoints: redefined, and deleted. Blocking; ``Domain`` calls it.

libvirt keeps the description of a checkpoint, and QEMU a bitmap of its name in each disk's image.
Each can be lost without the other: the description when the domain is defined again or migrated, a
bitmap when QEMU is killed or an image is replaced. Source: libvirt's libvirt-domain-checkpoint and
formatcheckpoint.
"""

from collections.abc import Iterable, Sequence

import libvirt
from lxml import etree

from virtbackup_async.errors import HypervisorError
from virtbackup_async.hypervisor.job_xml import describe_checkpoint
from virtbackup_async.model.domain_xml import parse

_REDEFINE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
_REDEFINE_CHECKED = _REDEFINE | libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
_WITH_SIZES = libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN | libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE
_NO_BITMAP = frozenset(
    {
        libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT,
        libvirt.VIR_ERR_INTERNAL_ERROR,
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_OPERATION_FAILED,
    }
)
"""Codes of "bitmap '...' not found in backing chain of '...'", which differ by version."""


def _refuse_during_job(handle: libvirt.virDomain, name: str) -> None:
    """Touch no checkpoint while a job of the domain runs: libvirtd can crash.

    The lock on the domain keeps virtbackup's own jobs apart; this finds foreign ones.

    Raises:
        HypervisorError: a job runs.
    """
    if handle.isActive() and handle.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
        raise HypervisorError(
            f"checkpoint {name} is left alone while another job runs",
            domain=handle.name(),
            hint="Wait for it, or end it by `virsh domjobabort`.",
        )


def redefine(
    handle: libvirt.virDomain, name: str, date: int, devs: Sequence[str]
) -> frozenset[str]:
    """Redefine a checkpoint; return the disks that still have its bitmap, and a consistent one.

    libvirt asks QEMU for each bitmap. The new description replaces libvirt's old one.

    Args:
        handle: the running domain.
        name: the checkpoint's name.
        date: its date, in seconds since the epoch.
        devs: the disks that it was made for; those that the domain no longer has are ignored.
    """
    _refuse_during_job(handle, name)
    there = [dev for dev in devs if dev in _disks_of(handle)]
    if there and _redefine(handle, name, date, there, _REDEFINE_CHECKED):
        return frozenset(there)
    good = [dev for dev in there if _redefine(handle, name, date, [dev], _REDEFINE_CHECKED)]
    if good:
        _redefine(handle, name, date, good, _REDEFINE_CHECKED)
    return frozenset(good)


def changed_bytes(handle: libvirt.virDomain, name: str) -> dict[str, int] | None:
    """Return how much has changed since a checkpoint, by dev; changes nothing.

    None if libvirt does not know the checkpoint, or QEMU lacks one of its bitmaps.

    Args:
        handle: the running domain.
        name: the checkpoint's name.
    """
    _refuse_during_job(handle, name)
    checkpoint = _find(handle, name)
    if checkpoint is None:
        return None
    try:
        xml = checkpoint.getXMLDesc(_WITH_SIZES)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _NO_BITMAP:
            raise
        return None
    disks = parse(xml).findall("disks/disk[@size]")
    return {disk.get("name", ""): int(disk.get("size", "0")) for disk in disks}


def delete(handle: libvirt.virDomain, name: str, devs: Iterable[str]) -> bool:
    """Delete a checkpoint and its bitmaps; a missing one is fine.

    If one bitmap is missing, or libvirt lost the description, libvirt deletes none of the bitmaps.
    Then this deletes them one by one.

    Args:
        handle: the domain.
        name: the checkpoint's name.
        devs: the disks whose images can have its bitmap.

    Returns:
        Whether the bitmaps are gone. If the domain is shut off, they are not: only QEMU can delete
        them, and libvirt only forgets the checkpoint.
    """
    _refuse_during_job(handle, name)
    checkpoint = _find(handle, name)
    if not handle.isActive():
        if checkpoint is not None:
            checkpoint.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
        return False
    if checkpoint is not None and _delete_whole(checkpoint):
        return True
    covered = _covered(checkpoint) if checkpoint is not None else set()
    for dev in {*devs, *covered} & {*_disks_of(handle)}:
        if _redefine(handle, name, 0, [dev], _REDEFINE):
            _delete_whole(handle.checkpointLookupByName(name))
    left = _find(handle, name)
    if left is not None:
        left.delete(libvirt.VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY)
    return True


def _find(handle: libvirt.virDomain, name: str) -> libvirt.virDomainCheckpoint | None:
    found = [item for item in handle.listAllCheckpoints(0) if item.getName() == name]
    return found[0] if found else None


def _delete_whole(checkpoint: libvirt.virDomainCheckpoint) -> bool:
    try:
        checkpoint.delete(0)
    except libvirt.libvirtError as error:
        # "bitmap '...' not found in backing chain of '...'"
        if error.get_error_code() != libvirt.VIR_ERR_INTERNAL_ERROR:
            raise
        return False
    return True


def _redefine(
    handle: libvirt.virDomain, name: str, date: int, devs: Sequence[str], flags: int
) -> bool:
    """Redefine a checkpoint; False if QEMU lacks one of the bitmaps."""
    others = [dev for dev in _disks_of(handle) if dev not in devs]
    root = describe_checkpoint(name, devs, others)
    known = _find(handle, name)
    if known is not None:
        xml = known.getXMLDesc(libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN)
        root.extend(parse(xml).findall("parent"))
    etree.SubElement(root, "creationTime").text = str(date)
    root.append(parse(handle.XMLDesc(0)))
    try:
        handle.checkpointCreateXML(etree.tostring(root, encoding="unicode"), flags)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT:
            raise
        return False
    return True


def _covered(checkpoint: libvirt.virDomainCheckpoint) -> set[str]:
    xml = checkpoint.getXMLDesc(libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN)
    disks = parse(xml).findall("disks/disk[@checkpoint='bitmap']")
    return {disk.get("name", "") for disk in disks}


def _disks_of(handle: libvirt.virDomain) -> list[str]:
    targets = parse(handle.XMLDesc(0)).findall("devices/disk/target")
    return [target.get("dev", "") for target in targets]
