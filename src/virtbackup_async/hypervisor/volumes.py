"""Where the disks are that a domain's XML names by a storage pool and a volume.

Blocking, like all of libvirt. What a pool does not say is a reason, never an error: the domain's
other disks do not need it. Source: libvirt's libvirt-storage.
"""

from pathlib import Path

import libvirt

from virtbackup_async.model import domain_xml
from virtbackup_async.model.domain import Volume

_KINDS = {libvirt.VIR_STORAGE_VOL_FILE: "file", libvirt.VIR_STORAGE_VOL_BLOCK: "block"}


def read_volumes(connection: libvirt.virConnect, xml: str) -> dict[str, Volume]:
    """Return, by dev, where each disk is that is a volume of a pool."""
    volumes = domain_xml.pool_volumes(xml)
    return {dev: _read(connection, pool, name) for dev, (pool, name) in volumes.items()}


def _read(connection: libvirt.virConnect, pool: str, name: str) -> Volume:
    try:
        volume = connection.storagePoolLookupByName(pool).storageVolLookupByName(name)
        kind = _KINDS.get(volume.info()[0], "network")
        return Volume(Path(volume.path()), kind)
    except libvirt.libvirtError as error:
        return Volume(None, reason=f"pool {pool} does not say where it is: {error}")
