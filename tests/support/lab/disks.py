"""Disks for the lab's domains: small images, made with mkfs.ext4 and qemu-img, never mounted here.

Called by ``domains.py``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

from lab.process import LabError, run

MIB = 1 << 20


@dataclass(frozen=True)
class DiskSpec:
    """One disk of a domain.

    Attributes:
        dev: the target, ``vda``.
        format: of the image the domain writes to.
        size_bytes: what the guest sees.
        fs: made inside the lowest image; None leaves it empty.
        content: a directory whose files the file system starts with.
        backing: how many qcow2 images lie below the written one.
        kind: ``cdrom`` and ``floppy`` are devices with an image that the guest does not mount.
        readonly: the guest cannot write to it.
        serial: what the guest sees as the disk's serial number.
    """

    dev: str
    format: Literal["qcow2", "raw"] = "qcow2"
    size_bytes: int = 64 * MIB
    fs: Literal["ext4"] | None = "ext4"
    content: Path | None = None
    backing: int = 0
    kind: Literal["disk", "cdrom", "floppy"] = "disk"
    readonly: bool = False
    serial: str | None = None


def make_image(spec: DiskSpec, directory: Path, name: str) -> Path:
    """Make the disk's image chain in ``directory`` and return the image that is written to.

    The chain is ``<name>-<dev>.base0.qcow2`` (lowest) … ``<name>-<dev>.<format>``.
    """
    if spec.backing and spec.format != "qcow2":
        raise LabError(f"disk {spec.dev}: a raw image has nothing below it")
    stem = f"{name}-{spec.dev}"
    chain = [directory / f"{stem}.base{n}.qcow2" for n in range(spec.backing)]
    chain.append(directory / f"{stem}.{spec.format}")
    lowest, *above = chain
    _make_lowest(spec, lowest)
    for below, image in zip(chain, above, strict=False):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below, image)
    return chain[-1]


def _make_lowest(spec: DiskSpec, image: Path) -> None:
    image_format = image.suffix[1:]
    if spec.fs is None:
        run("qemu-img", "create", "-q", "-f", image_format, image, str(spec.size_bytes))
        return
    raw = image if image_format == "raw" else image.with_suffix(".mkfs")
    with raw.open("wb") as file:
        file.truncate(spec.size_bytes)
    content: list[str | Path] = ["-d", spec.content] if spec.content else []
    run("mkfs.ext4", "-q", "-F", "-L", spec.dev, *content, raw)
    if raw is not image:
        run("qemu-img", "convert", "-f", "raw", "-O", image_format, raw, image)
        raw.unlink()


def disk_xml(spec: DiskSpec, image: Path, bus: str) -> str:
    """libvirt's element for the disk."""
    if spec.kind != "disk":
        bus = "ide" if spec.kind == "cdrom" else "fdc"
    serial = f"<serial>{escape(spec.serial)}</serial>" if spec.serial else ""
    readonly = "<readonly/>" if spec.readonly or spec.kind == "cdrom" else ""
    return (
        f"<disk type='file' device='{spec.kind}'>"
        f"<driver name='qemu' type='{spec.format}' discard='unmap'/>"
        f"<source file='{escape(str(image))}'/><target dev='{spec.dev}' bus='{bus}'/>"
        f"{serial}{readonly}</disk>"
    )
