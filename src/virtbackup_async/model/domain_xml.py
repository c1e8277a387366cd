"""Reading a domain's XML: which disks can be backed up, and which cannot and why.

The XML comes from libvirt, or from a definition file that anybody might have written. So the parser
accepts no entities and no DTD, and uses no network. Pure: text in, values out. Source: libvirt's
docs/formatdomain.html, "Hard drives, floppy disks, CDROMs".
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from lxml import etree

from virtbackup_async.errors import DefinitionError
from virtbackup_async.model.disk_xml import (
    Reader,
    attribute,
    disk_of,
    is_encrypted,
    without_image_details,
)
from virtbackup_async.model.domain import Disk, DomainInfo, SkippedDisk, Volume
from virtbackup_async.model.uuids import canonical_uuid

AGENT_CHANNEL = "org.qemu.guest_agent.0"
_NO_VOLUMES: Mapping[str, Volume] = MappingProxyType({})


def parse(xml: str) -> etree._Element:
    """Parse untrusted XML.

    Raises:
        DefinitionError: it is not well-formed, or declares a document type.
    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        # Bytes: lxml refuses text with an encoding declaration.
        root = etree.fromstring(xml.encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        why = " ".join(str(error).split())
        raise DefinitionError(f"the domain's XML cannot be read: {why}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise DefinitionError(
            "the domain's XML carries a document type, which libvirt never writes"
        )
    return root


def uuid(xml: str) -> str | None:
    """Return the domain's UUID as libvirt writes it; None if the XML has none, or is damaged."""
    try:
        return canonical_uuid(parse(xml).findtext("uuid"))
    except DefinitionError:
        return None


def disks(
    xml: str, reader: Reader = Reader.COPY, volumes: Mapping[str, Volume] = _NO_VOLUMES
) -> tuple[tuple[Disk, ...], tuple[SkippedDisk, ...]]:
    """Split a domain's disks into those that can be backed up, and the others with a reason each.

    Args:
        xml: the domain's.
        reader: the reader of the disks.
        volumes: the volumes of pools, by dev.
    """
    wanted: list[Disk] = []
    skipped: list[SkippedDisk] = []
    for element in parse(xml).iterfind("devices/disk"):
        dev = attribute(element, "target", "dev")
        if dev is None:
            continue
        found = disk_of(element, dev, reader, volumes)
        if isinstance(found, Disk):
            wanted.append(found)
        else:
            skipped.append(SkippedDisk(dev, found))
    return tuple(wanted), tuple(skipped)


def disks_of(info: DomainInfo, *, pull: bool) -> tuple[tuple[Disk, ...], tuple[SkippedDisk, ...]]:
    """Split a domain's disks as :func:`disks` does, for this method and the domain's state."""
    return disks(info.xml, Reader.of(pull=pull, is_active=info.is_active), info.volumes)


def pool_volumes(xml: str) -> dict[str, tuple[str, str]]:
    """Return the pool and the volume of each disk on a volume, by dev."""
    found = {}
    for element in parse(xml).iterfind("devices/disk[@type='volume']"):
        dev = attribute(element, "target", "dev")
        pool, volume = (attribute(element, "source", name) for name in ("pool", "volume"))
        if dev and pool and volume:
            found[dev] = (pool, volume)
    return found


def disk_sources(xml: str) -> dict[str, Path]:
    """Return the image path of each disk that has one, by target."""
    found = {}
    for element in parse(xml).iterfind("devices/disk"):
        dev = attribute(element, "target", "dev")
        path = attribute(element, "source", "file")
        if dev and path:
            found[dev] = Path(path)
    return found


def writable_devs(xml: str) -> tuple[str, ...]:
    """Return the devs of the disks that hold the domain's own data, in order.

    A drive for CDs or floppies, a read-only disk and a disk without a source hold none.
    """
    return tuple(
        dev
        for element in parse(xml).iterfind("devices/disk")
        if element.get("device", "disk") in {"disk", "lun"}
        and element.find("source") is not None
        and element.find("readonly") is None
        and (dev := attribute(element, "target", "dev"))
    )


def encrypted_devs(xml: str) -> frozenset[str]:
    """Return the disks that are encrypted by the XML."""
    return frozenset(
        dev
        for element in parse(xml).iterfind("devices/disk")
        if is_encrypted(element) and (dev := attribute(element, "target", "dev"))
    )


def devs_with_block_job(xml: str) -> frozenset[str]:
    """Return the disks that a block job works on; only a running domain's XML shows them."""
    return frozenset(
        dev
        for element in parse(xml).iterfind("devices/disk")
        if element.find("mirror") is not None and (dev := attribute(element, "target", "dev"))
    )


def has_agent_channel(xml: str) -> bool:
    """Return whether the domain has the channel that a guest agent listens on."""
    targets = parse(xml).iterfind("devices/channel/target")
    return any(target.get("name") == AGENT_CHANNEL for target in targets)


def socket_directories(xml: str) -> tuple[Path, ...]:
    """Return the directories in which QEMU itself made sockets for the domain's channels."""
    sources = parse(xml).iterfind("devices/channel[@type='unix']/source[@mode='bind']")
    return tuple(dict.fromkeys(Path(source.get("path", "/")).parent for source in sources))


def with_raw_disks(xml: str, devs: Collection[str]) -> str:
    """Return the domain's XML with these disks raw, as a pull job reads them.

    The backing chains that libvirt found are removed, and so are the layers through which QEMU read
    the disks: a raw image has no backing file, is not encrypted, and is not a part of a file.
    """
    root = parse(xml)
    for element in root.iterfind("devices/disk"):
        if attribute(element, "target", "dev") in devs:
            without_image_details(element)
    return etree.tostring(root, encoding="unicode")


def names_backing(xml: str, dev: str) -> bool:
    """Return whether the XML of a shut-off domain names a backing file of a disk."""
    return any(
        attribute(element, "target", "dev") == dev
        and element.find("backingStore/source") is not None
        for element in parse(xml).iterfind("devices/disk")
    )


def with_source(xml: str, dev: str, path: Path, image_format: str) -> str:
    """Return the XML of one disk, changed to name ``path`` as its image.

    Raises:
        DefinitionError: the XML has no such disk.
    """
    disk = _set_source(parse(xml), dev, path, image_format)
    return etree.tostring(disk, encoding="unicode")


def with_disk_on(xml: str, dev: str, path: Path, image_format: str) -> str:
    """Return the XML of a domain, one disk changed to name ``path`` as its image.

    Raises:
        DefinitionError: the XML has no such disk.
    """
    root = parse(xml)
    _set_source(root, dev, path, image_format)
    return etree.tostring(root, encoding="unicode")


def _set_source(root: etree._Element, dev: str, path: Path, image_format: str) -> etree._Element:
    for element in root.iterfind("devices/disk"):
        source, driver = element.find("source"), element.find("driver")
        if attribute(element, "target", "dev") != dev or source is None:
            continue
        source.set("file", str(path))
        if driver is not None:
            driver.set("type", image_format)
        backing = element.find("backingStore")
        if backing is not None:
            # It described the overlay's chain; libvirt finds the new chain itself.
            element.remove(backing)
        return element
    raise DefinitionError(f"the domain has no disk {dev}", disk=dev)
