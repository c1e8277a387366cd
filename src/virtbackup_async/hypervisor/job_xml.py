"""The XML of a snapshot, of a pull-mode backup job and of a checkpoint.

Source: libvirt's formatsnapshot, formatbackup and formatcheckpoint.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from lxml import etree

from virtbackup_async.model.domain_xml import parse
from virtbackup_async.model.pull import PullJob, export_bitmap
from virtbackup_async.model.tracking import Tracking


def snapshot_xml(name: str, overlays: Mapping[str, Path], others: Iterable[str]) -> str:
    """Describe one atomic external snapshot: an overlay for each wanted disk, and nothing else.

    Args:
        name: shown in libvirt's messages; libvirt keeps no metadata of the snapshot.
        overlays: by dev, the path of the overlay.
        others: every other disk; libvirt would also snapshot a disk that is not named.
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


def backup_xml(job: PullJob, tracking: Tracking, others: Iterable[str]) -> str:
    """Describe a pull job: an export of each disk, under its dev's name, and nothing else.

    Args:
        job: the socket that QEMU serves at, and a scratch image for each disk.
        tracking: the checkpoint since which each disk's changes are exported.
        others: every other disk; libvirt would also back up a disk that is not named.
    """
    root = etree.Element("domainbackup", mode="pull")
    etree.SubElement(root, "server", transport="unix", socket=str(job.socket))
    listed = etree.SubElement(root, "disks")
    for dev, scratch in job.scratch.items():
        disk = etree.SubElement(listed, "disk", name=dev, backup="yes", type="file", exportname=dev)
        since = tracking.since(dev)
        if since is not None:
            disk.set("backupmode", "incremental")
            disk.set("incremental", since)
            disk.set("exportbitmap", export_bitmap(dev))
        etree.SubElement(disk, "driver", type="qcow2")
        etree.SubElement(disk, "scratch", file=str(scratch))
    for dev in others:
        etree.SubElement(listed, "disk", name=dev, backup="no")
    return etree.tostring(root, encoding="unicode")


def checkpoint_xml(name: str, devs: Iterable[str], others: Iterable[str]) -> str:
    """Describe a new checkpoint: a bitmap of its name in each disk of ``devs``.

    ``others`` are all other disks: libvirt would also include a disk that is not named.
    """
    return etree.tostring(describe_checkpoint(name, devs, others), encoding="unicode")


def describe_checkpoint(name: str, devs: Iterable[str], others: Iterable[str]) -> etree._Element:
    """Return the XML of a checkpoint, to which a redefinition adds what libvirt knew of it."""
    root = etree.Element("domaincheckpoint")
    etree.SubElement(root, "name").text = name
    listed = etree.SubElement(root, "disks")
    for dev in devs:
        etree.SubElement(listed, "disk", name=dev, checkpoint="bitmap", bitmap=name)
    for dev in others:
        etree.SubElement(listed, "disk", name=dev, checkpoint="no")
    return root


def socket_of(xml: str) -> Path | None:
    """Return the socket at which a running job serves; None for a job of another kind."""
    server = parse(xml).find("server")
    socket = None if server is None else server.get("socket")
    return Path(socket) if socket else None
