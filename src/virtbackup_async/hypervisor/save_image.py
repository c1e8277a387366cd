"""A domain's managed save image: its memory, kept by ``virsh managedsave`` for its next start.

A saved domain counts as shut off, and is not: the next start resumes its memory, which holds what
the guest had not written yet and what it believes to be on its disks. The save image has an XML of
its own, which names the images that the domain goes on with, whatever its definition says.
Blocking; ``Domain`` calls it. Source: libvirt's virDomainManagedSave and its family.
"""

from pathlib import Path

import libvirt

from virtbackup_async.model import domain_xml


def is_saved(handle: libvirt.virDomain) -> bool:
    """Return whether the domain's next start resumes a saved memory."""
    try:
        return bool(handle.hasManagedSaveImage(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return False


def saved_sources(handle: libvirt.virDomain) -> dict[str, Path]:
    """Return the image of each disk that the saved memory goes on with; none if it is not saved."""
    if not is_saved(handle):
        return {}
    return domain_xml.disk_sources(handle.managedSaveGetXMLDesc(0))


def set_saved_source(handle: libvirt.virDomain, dev: str, path: Path, image_format: str) -> None:
    """Let the saved memory go on with another image of the same content."""
    xml = handle.managedSaveGetXMLDesc(libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
    changed = domain_xml.with_disk_on(xml, dev, path, image_format)
    handle.managedSaveDefineXML(changed, 0)


def remove_saved(handle: libvirt.virDomain) -> None:
    """Forget the saved memory: what the guest had not written is lost, as if its power went."""
    handle.managedSaveRemove(0)
