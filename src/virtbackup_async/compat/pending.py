"""Pending files of virt-backup 0.1 to 0.5.6, in today's shape.

They follow the definition up to 0.4. 0.5.2 gave each disk its ``type``, which older ones are given
from the domain's XML. 1.0 (this program) always names a disk's ``target``; virt-backup adds it
only when that disk's turn comes. ``catalog`` calls :func:`upgrade`.
"""

from lxml import etree

from virtbackup_async.compat import steps
from virtbackup_async.compat.definition import TO_0_4
from virtbackup_async.compat.steps import Raw, Step
from virtbackup_async.errors import DefinitionError


def upgrade(raw: Raw) -> Raw:
    """Return a pending file's data of any version in today's shape; ``raw`` stays as it is.

    Raises:
        DefinitionError: its version cannot be read, or its domain XML is needed and damaged.
    """
    return steps.upgrade(raw, (TO_0_4, Step((0, 5, 2), _to_0_5_2), Step((1, 0, 0), _to_1_0)))


def _to_0_5_2(raw: Raw) -> Raw:
    disks = _disks(raw)
    if all("type" in disk for disk in disks.values()):
        return raw
    types = _disk_types(raw.get("domain_xml"))
    return {**raw, "disks": {dev: _with_type(dev, disk, types) for dev, disk in disks.items()}}


def _with_type(dev: str, disk: Raw, types: dict[str, str]) -> Raw:
    if "type" in disk:
        return disk
    if dev not in types:
        raise DefinitionError(f"disks.{dev} has no type, and domain_xml no such disk", disk=dev)
    return {**disk, "type": types[dev]}


def _to_1_0(raw: Raw) -> Raw:
    name = raw.get("name")
    if not name:
        return raw  # virt-backup died before it had one: the reader takes it from the file's name
    disks = {
        dev: disk if "target" in disk else {**disk, "target": f"{name}_{dev}.{disk.get('type')}"}
        for dev, disk in _disks(raw).items()
    }
    return {**raw, "disks": disks}


def _disks(raw: Raw) -> dict[str, Raw]:
    disks = raw.get("disks", {})
    if not isinstance(disks, dict) or not all(isinstance(disk, dict) for disk in disks.values()):
        raise DefinitionError("disks is not an object of objects")
    return disks


def _disk_types(domain_xml: object) -> dict[str, str]:
    """Return each disk's image format by its dev; libvirt's default is ``raw``."""
    types = {}
    for disk in _parse(domain_xml).iterfind("devices/disk"):
        target, driver = disk.find("target"), disk.find("driver")
        dev = target.get("dev") if target is not None else None
        if dev is not None and disk.get("device", "disk") == "disk":
            types[dev] = "raw" if driver is None else driver.get("type", "raw")
    return types


def _parse(domain_xml: object) -> etree._Element:
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False
    )
    try:
        root = etree.fromstring(str(domain_xml).encode(), parser)
    except (ValueError, etree.XMLSyntaxError) as error:
        raise DefinitionError(f"domain_xml cannot be read: {error}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise DefinitionError("domain_xml has a document type, which libvirt never writes")
    return root
