"""What libvirt reports of a domain, as values of ``model``. Blocking; ``Domain`` calls it.

Source: libvirt's libvirt-domain and libvirt-storage.
"""

from pathlib import Path

import libvirt

from virtbackup_async.hypervisor.directories import libvirt_directories
from virtbackup_async.hypervisor.save_image import is_saved, saved_sources
from virtbackup_async.model import domain_xml
from virtbackup_async.model.domain import DomainInfo, Sources, Volume

_KINDS = {libvirt.VIR_STORAGE_VOL_FILE: "file", libvirt.VIR_STORAGE_VOL_BLOCK: "block"}


def read_info(handle: libvirt.virDomain) -> DomainInfo:
    """Return the domain's identity, state and XML as they are now."""
    connection, xml = handle.connect(), handle.XMLDesc(0)
    directories = libvirt_directories(connection.getURI())
    return DomainInfo(
        name=handle.name(),
        uuid=handle.UUIDString(),
        domain_id=handle.ID(),
        is_active=bool(handle.isActive()),
        is_persistent=bool(handle.isPersistent()),
        xml=xml,
        swtpm_directory=directories.swtpm if directories else None,
        running_directory=directories.running if directories else None,
        state_directories=directories.state if directories else frozenset(),
        is_saved=is_saved(handle),
        is_suspended=handle.state()[0] == libvirt.VIR_DOMAIN_PMSUSPENDED,
        volumes=_volumes(connection, xml),
    )


def read_sources(handle: libvirt.virDomain) -> Sources:
    """Return the images that the domain uses now, and those of its next start."""
    live_xml = handle.XMLDesc(0) if handle.isActive() else None
    persistent = None
    if handle.isPersistent():
        inactive_xml = handle.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        persistent = domain_xml.disk_sources(inactive_xml)
    if live_xml is None:
        return Sources(None, persistent, saved=saved_sources(handle))
    return Sources(
        domain_xml.disk_sources(live_xml), persistent, domain_xml.devs_with_block_job(live_xml)
    )


def is_paused_on_io_error(handle: libvirt.virDomain) -> bool:
    """Return whether QEMU paused the guest because of an I/O error of the host."""
    state, reason = handle.state()
    return (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)


def _volumes(connection: libvirt.virConnect, xml: str) -> dict[str, Volume]:
    """Return, by dev, the path of each disk that the XML names as a volume of a storage pool."""
    volumes = domain_xml.pool_volumes(xml)
    return {dev: _volume(connection, pool, name) for dev, (pool, name) in volumes.items()}


def _volume(connection: libvirt.virConnect, pool: str, name: str) -> Volume:
    # What a pool does not say is a reason, not an error: the domain's other disks do not need it.
    try:
        volume = connection.storagePoolLookupByName(pool).storageVolLookupByName(name)
        kind = _KINDS.get(volume.info()[0], "network")
        return Volume(Path(volume.path()), kind)
    except libvirt.libvirtError as error:
        return Volume(None, reason=f"pool {pool} does not say where it is: {error}")
