"""The XML of a pull-mode backup job. Source: libvirt's docs/formatbackup.html.

With a checkpoint that is made at the same moment: docs/formatcheckpoint.html.
"""

from collections.abc import Iterable
from pathlib import Path

from lxml import etree

from virtbackup_async.model.domain_xml import parse
from virtbackup_async.model.pull import PullJob, export_bitmap


def backup_xml(job: PullJob, others: Iterable[str]) -> str:
    """Ask for an export of each disk of the job, under its dev's name, and of nothing else.

    Args:
        job: the socket to serve at, and a scratch image for each disk.
        others: every other disk. libvirt would take a disk that is not named, too.
    """
    root = etree.Element("domainbackup", mode="pull")
    etree.SubElement(root, "server", transport="unix", socket=str(job.socket))
    listed = etree.SubElement(root, "disks")
    for dev, scratch in job.scratch.items():
        disk = etree.SubElement(listed, "disk", name=dev, backup="yes", type="file", exportname=dev)
        since = job.tracking.since(dev)
        if since is not None:
            disk.set("backupmode", "incremental")
            disk.set("incremental", since)
            disk.set("exportbitmap", export_bitmap(dev))
        etree.SubElement(disk, "driver", type="qcow2")
        etree.SubElement(disk, "scratch", file=str(scratch))
    for dev in others:
        etree.SubElement(listed, "disk", name=dev, backup="no")
    return etree.tostring(root, encoding="unicode")


def socket_of(xml: str) -> Path | None:
    """Return the socket that a running job serves at; None for a job of another kind."""
    server = parse(xml).find("server")
    socket = None if server is None else server.get("socket")
    return Path(socket) if socket else None
