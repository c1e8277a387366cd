"""One ``<disk>`` of a domain's XML: the bytes that it means, and the readers that can read them.

::

    by                    the domain   can read
    QEMU, a pull job      runs         whatever QEMU has open
    qemu-nbd              is off       images in files and on block devices, and those below them
    a copy of the files   either       images in files, and those below them

Some elements change the meaning of an image: an encryption, a part of a file, a separate data file,
backing files. This module either understands such an element, or skips the disk with it as the
reason. docs/reference/disks.md has the complete table, from a test. Pure. Source: libvirt's
docs/formatdomain.html, "Hard drives, floppy disks, CDROMs".
"""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from pathlib import Path

from lxml import etree
from msgspec.structs import replace

from virtbackup_async.model.domain import BackingImage, Disk, ToldChain, Volume

SUPPORTED_FORMATS = ("qcow2", "raw")
_OPENED_BY_QEMU = ("file", "block", "network", "volume")
_ON_A_PATH = ("file", "block")
# They select the bytes of a source; without them it is another image.
_OF_THE_IMAGE = ("encryption", "slices", "dataStore")
_ONLY_PULLED = "only `method: pull` takes it, while the domain runs"


class Reader(Enum):
    """A reader of a domain's disks."""

    PULL_JOB = auto()
    QEMU_NBD = auto()
    COPY = auto()

    @classmethod
    def of(cls, *, pull: bool, is_active: bool) -> "Reader":
        """Return the reader for a domain that runs or not, by that method."""
        if not pull:
            return cls.COPY
        return cls.PULL_JOB if is_active else cls.QEMU_NBD


def disk_of(
    element: etree._Element, dev: str, reader: Reader, volumes: Mapping[str, Volume]
) -> Disk | str:
    """Return the disk, or the reason why it cannot be read."""
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
    """Change a disk's element to describe the raw image that was read through all its layers."""
    driver = element.find("driver")
    if driver is not None:
        driver.set("type", "raw")
    source = element.find("source")
    for parent in (element,) if source is None else (element, source):
        for tag in (*_OF_THE_IMAGE, "backingStore", "mirror"):
            for child in parent.findall(tag):
                parent.remove(child)


def set_file(
    element: etree._Element,
    path: Path,
    image_format: str | None = None,
    below: Sequence[Path] = (),
) -> None:
    """Put a disk on an image in a file; nothing else about its source applies to the file.

    If the image was copied as it was, the elements that describe its bytes stay: its encryption,
    and the encryption of its backing files.

    Args:
        element: of the disk.
        path: of the image.
        image_format: of the image, if it is not the one in the XML.
        below: the paths of its backing files, nearest first.
    """
    driver = element.find("driver")
    if image_format is not None:
        driver = etree.SubElement(element, "driver", name="qemu") if driver is None else driver
        driver.set("type", image_format)
    if driver is not None and driver.get("type") != "qcow2":
        _without_qcow2_options(driver)
    source = element.find("source")
    if source is None:
        source = etree.SubElement(element, "source")
    _move_source(source, path)
    element.set("type", "file")
    # The facts that libvirt found out itself describe the old images; a login is for a server.
    for tag in ("mirror", "auth"):
        for child in element.findall(tag):
            element.remove(child)
    store = element.find("backingStore")
    if store is not None and store.find(".//encryption") is not None:
        _move_chain(store, below)
    elif store is not None:
        element.remove(store)


def _without_qcow2_options(driver: etree._Element) -> None:
    # libvirt refuses a domain that has them with another format.
    if driver.get("discard_no_unref") is not None:
        del driver.attrib["discard_no_unref"]
    for child in driver.findall("metadata_cache"):
        driver.remove(child)


def _move_source(source: etree._Element, path: Path) -> None:
    policy = source.get("startupPolicy")
    kept = [child for child in source if child.tag in {"encryption", "seclabel"}]
    source.clear()
    source.set("file", str(path))
    if policy is not None:
        source.set("startupPolicy", policy)
    source.extend(kept)


def _move_chain(store: etree._Element | None, below: Sequence[Path]) -> None:
    """Put the images' new paths into a chain; it stays because no header has their encryption."""
    for path in below:
        source = None if store is None else store.find("source")
        if store is None or source is None:
            return
        store.attrib.clear()
        store.set("type", "file")
        _move_source(source, path)
        store = store.find("backingStore")


def format_of(element: etree._Element) -> str:
    """Return the image's format."""
    # Without a driver type, libvirt takes an image for raw: probing it would let a guest choose.
    return attribute(element, "driver", "type") or "raw"


def is_encrypted(element: etree._Element) -> bool:
    """Return whether QEMU or the storage decrypts the guest's data, or a part of it."""
    return element.find(".//encryption") is not None


def attribute(element: etree._Element, child: str, name: str) -> str | None:
    """Return an attribute of a child; None if the child or its attribute is missing."""
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
    """Return why this reader cannot read a disk that QEMU can read; None if it can."""
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
            return f"{what}: {_ONLY_PULLED}"
    store = _told_data_file(element.find("source"))
    if isinstance(store, str) and reader is Reader.QEMU_NBD:
        return f"{store}: {_ONLY_PULLED}"
    return _why_not_copied(element) if reader is Reader.COPY else None


def _why_not_copied(element: etree._Element) -> str | None:
    if element.get("type") != "file":
        return f"a {element.get('type')} disk: only `method: pull` takes it"
    if element.find("source/dataStore") is not None:
        return "its data are in another file: only `method: pull` takes it"
    return None


def _source(element: etree._Element) -> str:
    """Return the source of a disk: a path, or ``server:name``; empty if it has none."""
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
    """Return the type and the source of a disk; for a volume, those that its pool has for it."""
    kind = element.get("type", "")
    volume = volumes.get(dev)
    if kind == "volume" and volume is not None and volume.path is not None:
        return volume.kind, str(volume.path)
    return kind, _source(element)


def _told_chain(element: etree._Element) -> ToldChain:
    """Return a disk's backing chain as far as the XML has it; libvirt relies on that."""
    data_file = _told_data_file(element.find("source"))
    told = ToldChain(data_file=data_file if isinstance(data_file, Path) else None)
    below = element.find("backingStore")
    while below is not None:
        if below.get("type") is None:
            return replace(told, is_whole=True)
        image = _told_image(below)
        if isinstance(image, str):
            return replace(told, reason=f"{image}: {_ONLY_PULLED}")
        told = replace(told, images=(*told.images, image))
        below = below.find("backingStore")
    return told


def _told_image(below: etree._Element) -> BackingImage | str:
    """Return a backing file, or why it is not in a file or on a block device of its own."""
    kind, source = below.get("type"), below.find("source")
    path = None if source is None else source.get("dev" if kind == "block" else "file")
    if source is None or kind not in _ON_A_PATH or not path:
        return f"below it is an image on {kind} storage"
    if source.find("slices") is not None:
        return f"below it is a part of {path}"
    if source.get("fdgroup") is not None:
        return "below it is an image from a descriptor"
    data_file = _told_data_file(source)
    if isinstance(data_file, str):
        return f"below it is {path}, and {data_file}"
    image_format = attribute(below, "format", "type") or "raw"
    if image_format == "raw" and source.find("encryption") is not None:
        image_format = "luks"
    return BackingImage(Path(path), image_format, data_file)


def _told_data_file(source: etree._Element | None) -> Path | str | None:
    """Return the path of an image's data file, or why only QEMU can read it.

    None if the XML names no such file.
    """
    store = None if source is None else source.find("dataStore")
    if store is None:
        return None
    kind = store.get("type")
    path = attribute(store, "source", "dev" if kind == "block" else "file")
    if kind not in _ON_A_PATH or not path:
        return f"its data are on {kind} storage"
    if (attribute(store, "format", "type") or "raw") != "raw":
        return f"its data are in {path}, which is not raw"
    if any(store.find(f"source/{tag}") is not None for tag in ("slices", "encryption")):
        return f"its data are in a part of {path}, or encrypted there"
    if attribute(store, "source", "fdgroup") is not None:
        return "its data are in a file from a descriptor"
    return Path(path)
