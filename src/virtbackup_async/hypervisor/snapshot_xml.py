"""The XML of one atomic external snapshot. Source: libvirt's docs/formatsnapshot.html."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from lxml import etree


def snapshot_xml(name: str, overlays: Mapping[str, Path], others: Iterable[str]) -> str:
    """Ask for an overlay at the given path for each wanted disk, and for nothing else.

    Args:
        name: shown in libvirt's messages; no metadata of the snapshot is kept.
        overlays: disk target to overlay path.
        others: every other disk. libvirt would snapshot a disk that is not named, too.
    """
    root = etree.Element("domainsnapshot")
    etree.SubElement(root, "name").text = name
    etree.SubElement(root, "description").text = "virtbackup: frozen while it is copied"
    listed = etree.SubElement(root, "disks")
    for dev, path in overlays.items():
        disk = etree.SubElement(listed, "disk", name=dev, snapshot="external", type="file")
        etree.SubElement(disk, "driver", type="qcow2")
        etree.SubElement(disk, "source", file=str(path))
    for dev in others:
        etree.SubElement(listed, "disk", name=dev, snapshot="no")
    return etree.tostring(root, encoding="unicode")
