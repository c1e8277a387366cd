"""Reads a domain into values of ``model``. Blocking; ``Domain`` calls it.

libvirt counts a domain with a managed save image as shut off, but its next start resumes the saved
memory, with data that the guest has not written yet, and with the guest's view of its disks. The
save image has its own XML, which names the images of the resumed domain, whatever the persistent
XML has.

libvirt's API does not report libvirt's own directories, so they follow from the connection's URI.
Sources: libvirt's libvirt-domain and libvirt-storage, and virQEMUDriverConfigNew in its
src/qemu/qemu_conf.c.
"""

import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import libvirt
from msgspec import Struct

from virtbackup_async.model import domain_xml
from virtbackup_async.model.domain import DomainInfo, Sources, Volume

_KINDS = {libvirt.VIR_STORAGE_VOL_FILE: "file", libvirt.VIR_STORAGE_VOL_BLOCK: "block"}


class Directories(Struct, frozen=True):
    """Directories of a libvirt on this host.

    Attributes:
        swtpm: the state of emulated TPMs, a directory for each domain, by UUID.
        running: a directory for each running domain, which its QEMU can write to.
        state: directories with a file for each domain: its UEFI variables, its pstore.
    """

    swtpm: Path
    running: Path
    state: frozenset[Path]


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
        is_saved=_is_saved(handle),
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
        return Sources(None, persistent, saved=_saved_sources(handle))
    return Sources(
        domain_xml.disk_sources(live_xml), persistent, domain_xml.devs_with_block_job(live_xml)
    )


def is_paused_on_io_error(handle: libvirt.virDomain) -> bool:
    """Return whether QEMU paused the guest because of an I/O error of the host."""
    state, reason = handle.state()
    return (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)


def libvirt_directories(uri: str) -> Directories | None:
    """Return the directories of a URI's QEMU driver; None for another driver.

    Args:
        uri: the connection's URI; a session's URI is taken for this process's user and environment.
    """
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] != "qemu":
        return None
    match parts.path:
        case "/system":
            base = Path("/var/lib/libvirt")
            return Directories(base / "swtpm", base / "qemu", _state(base / "qemu"))
        case "/session":
            base = _config_home() / "libvirt/qemu"
            return Directories(base / "swtpm", base / "lib", _state(base))
        case "/embed":
            for root in parse_qs(parts.query).get("root", ()):
                base = Path(root) / "lib"
                return Directories(base / "swtpm", base / "qemu", _state(base / "qemu"))
        case _:
            pass
    return None


def _is_saved(handle: libvirt.virDomain) -> bool:
    """Return whether the domain's next start resumes a saved memory."""
    try:
        return bool(handle.hasManagedSaveImage(0))
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise
        return False


def _saved_sources(handle: libvirt.virDomain) -> dict[str, Path]:
    """Return, by dev, the images that the saved memory resumes with; none if nothing is saved."""
    if not _is_saved(handle):
        return {}
    return domain_xml.disk_sources(handle.managedSaveGetXMLDesc(0))


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


def _state(base: Path) -> frozenset[Path]:
    return frozenset({base / "nvram", base / "varstore"})


def _config_home() -> Path:
    configured = os.environ.get("XDG_CONFIG_HOME")
    return Path(configured) if configured else Path.home() / ".config"
