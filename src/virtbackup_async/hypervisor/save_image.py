"""A domain's managed save image: its memory, which ``virsh managedsave`` keeps for the next start.

libvirt counts a saved domain as shut off, but its next start resumes the memory, with data that the
guest has not written yet, and with the guest's view of its disks. The save image has its own XML,
which names the images of the resumed domain, whatever the persistent XML has. Blocking; ``Domain``
calls it. Source: libvirt's virDomainManagedSave and its family.
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
    """Return, by dev, the images that the saved memory resumes with; none if nothing is saved."""
    if not is_saved(handle):
        return {}
    return domain_xml.disk_sources(handle.managedSaveGetXMLDesc(0))


def set_saved_source(handle: libvirt.virDomain, dev: str, path: Path, image_format: str) -> None:
    """Let the saved memory resume with another image of the same content."""
    xml = handle.managedSaveGetXMLDesc(libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
    changed = domain_xml.with_disk_on(xml, dev, path, image_format)
    handle.managedSaveDefineXML(changed, 0)


def remove_saved(handle: libvirt.virDomain) -> None:
    """Remove the saved memory: the guest loses unwritten data, as in a power cut."""
    handle.managedSaveRemove(0)
