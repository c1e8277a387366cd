"""One ``<disk>`` of a domain's XML: which bytes it means, and who can read them.

::

    by                    the domain   can read
    QEMU, a pull job      runs         whatever QEMU has open
    qemu-nbd              is off       images in files and on block devices, and those below them
    a copy of the files   either       images in files, and those below them

What changes the meaning of an image (an encryption, a part of a file, a data file beside it, images
below it) is either understood here or the reason why the disk is left out. docs/disks.md has the
whole table, from a test. Pure. Source: libvirt's docs/formatdomain.html, "Hard drives, floppy
disks, CDROMs".
"""

from collections.abc import Mapping
from enum import Enum, auto
from pathlib import Path

from lxml import etree

from virtbackup_async.model.domain import BackingImage, Disk, ToldChain, Volume

SUPPORTED_FORMATS = ("qcow2", "raw")
_OPENED_BY_QEMU = ("file", "block", "network", "volume")
_ON_A_PATH = ("file", "block")
# They say which bytes of a source are meant; without them it is another image.
_OF_THE_IMAGE = ("encryption", "slices", "dataStore")


class Reader(Enum):
    """Who reads a domain's disks."""

    PULL_JOB = auto()
    QEMU_NBD = auto()
    COPY = auto()

    @classmethod
    def of(cls, *, pull: bool, is_active: bool) -> "Reader":
        """Return who does, of a domain that runs or not, by that method."""
        if not pull:
            return cls.COPY
        return cls.PULL_JOB if is_active else cls.QEMU_NBD


def disk_of(
    element: etree._Element, dev: str, reader: Reader, volumes: Mapping[str, Volume]
) -> Disk | str:
    """Return the disk, or why it cannot be read."""
    reason = _why_never(element) or _why_not(element, dev, reader, volumes)
    if reason is not None:
        return reason
    kind, path = _place(element, dev, volumes)
    return Disk(
        dev,
        Path(path),
        format_of(element),
        kind=kind,
        encrypted=is_encrypted(element),
        told=_told_chain(element),
    )


def without_image_details(element: etree._Element) -> None:
    """Make a disk's element one of a raw image that was read through all that it describes."""
    driver = element.find("driver")
    if driver is not None:
        driver.set("type", "raw")
    source = element.find("source")
    for parent in (element,) if source is None else (element, source):
        for tag in (*_OF_THE_IMAGE, "backingStore", "mirror"):
            for child in parent.findall(tag):
                parent.remove(child)


def set_file(element: etree._Element, path: Path, image_format: str | None = None) -> None:
    """Put a disk on an image in a file: nothing else of its source is true of that.

    What belongs to the bytes of an image that was copied as it was stays: its encryption.

    Args:
        element: of the disk.
        path: of the image.
        image_format: of the image, where it is not what the XML says.
    """
    driver = element.find("driver")
    if image_format is not None:
        driver = etree.SubElement(element, "driver", name="qemu") if driver is None else driver
        driver.set("type", image_format)
    source = element.find("source")
    if source is None:
        source = etree.SubElement(element, "source")
    policy = source.get("startupPolicy")
    kept = [child for child in source if child.tag in {"encryption", "seclabel"}]
    source.clear()
    source.set("file", str(path))
    if policy is not None:
        source.set("startupPolicy", policy)
    source.extend(kept)
    element.set("type", "file")
    # What libvirt found out itself describes the images as they were; a login is for a server.
    for tag in ("backingStore", "mirror", "auth"):
        for child in element.findall(tag):
            element.remove(child)


def format_of(element: etree._Element) -> str:
    """Return the image's format."""
    # Without a driver type, libvirt takes an image for raw: probing it would let a guest choose.
    return attribute(element, "driver", "type") or "raw"


def is_encrypted(element: etree._Element) -> bool:
    """Tell whether QEMU, or the storage, decrypts what the guest reads."""
    source = element.find("source")
    return any(
        parent is not None and parent.find("encryption") is not None for parent in (element, source)
    )


def attribute(element: etree._Element, child: str, name: str) -> str | None:
    """Return an attribute of a child; None if there is no such child, or it has none."""
    found = element.find(child)
    return None if found is None else found.get(name)


def _why_never(element: etree._Element) -> str | None:
    device = element.get("device", "disk")
    kind = element.get("type", "")
    reasons = (
        (device != "disk", f"a {device}"),
        (kind not in _OPENED_BY_QEMU, f"a {kind} disk, which cannot be backed up"),
        (not _source(element), "has no image"),
        (element.find("readonly") is not None, "read-only"),
        (element.find("transient") is not None, "transient"),
        (element.find("shareable") is not None, "shared between domains"),
    )
    return next((reason for applies, reason in reasons if applies), None)


def _why_not(
    element: etree._Element, dev: str, reader: Reader, volumes: Mapping[str, Volume]
) -> str | None:
    """Say why this reader cannot read what QEMU can."""
    if reader is Reader.PULL_JOB:
        return None
    kind, _ = _place(element, dev, volumes)
    if kind == "volume":
        volume = volumes.get(dev)
        return f"a volume disk: {volume.reason if volume else 'its pool was not asked'}"
    image_format = format_of(element)
    reasons = (
        (kind not in _ON_A_PATH, f"a {kind} disk"),
        (image_format not in SUPPORTED_FORMATS, f"format {image_format}"),
        (element.find("source/slices") is not None, "a part of its image"),
        (attribute(element, "source", "fdgroup") is not None, "its image is from a descriptor"),
    )
    for applies, what in reasons:
        if applies:
            return f"{what}: only `method: pull` takes it, while the domain runs"
    return _why_not_copied(element) if reader is Reader.COPY else None


def _why_not_copied(element: etree._Element) -> str | None:
    if element.get("type") != "file":
        return f"a {element.get('type')} disk: only `method: pull` takes it"
    if element.find("source/dataStore") is not None:
        return "its data are in another file: only `method: pull` takes it"
    return None


def _source(element: etree._Element) -> str:
    """Return what a disk is on: a path, or ``server:name``; empty where it is on nothing."""
    match element.get("type"):
        case "network":
            protocol = attribute(element, "source", "protocol")
            return f"{protocol}:{attribute(element, 'source', 'name') or ''}" if protocol else ""
        case "block":
            return attribute(element, "source", "dev") or ""
        case "volume":
            pool, name = (attribute(element, "source", key) for key in ("pool", "volume"))
            return f"{pool}:{name}" if pool and name else ""
        case _:
            return attribute(element, "source", "file") or ""


def _place(element: etree._Element, dev: str, volumes: Mapping[str, Volume]) -> tuple[str, str]:
    """Return of what kind a disk is, and on what; of a volume, what its pool has it on."""
    kind = element.get("type", "")
    volume = volumes.get(dev)
    if kind == "volume" and volume is not None and volume.path is not None:
        return volume.kind, str(volume.path)
    return kind, _source(element)


def _told_chain(element: etree._Element) -> ToldChain:
    """Return the images below a disk as far as its XML says them; libvirt goes by that."""
    images: list[BackingImage] = []
    below = element.find("backingStore")
    while below is not None:
        kind = below.get("type")
        if kind is None:
            return ToldChain(tuple(images), is_whole=True)
        path = attribute(below, "source", "dev" if kind == "block" else "file")
        if kind not in _ON_A_PATH or not path:
            return ToldChain(tuple(images), reason=f"below it is an image on {kind} storage")
        images.append(BackingImage(Path(path), attribute(below, "format", "type") or "raw"))
        below = below.find("backingStore")
    return ToldChain(tuple(images))
