"""A domain as the backup needs it: its identity, its state and its disks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

NOT_WANTED: Final = "not listed in `disks` of the configuration"
NOTHING_TO_MISS: Final = frozenset(
    {
        "a cdrom",
        "a floppy",
        "has no image",
        "read-only",
        *(f"a {kind} device of the host" for kind in ("pci", "usb", "mdev")),
    }
)
"""Reasons to leave a disk out of a backup that cost nothing of the domain's own data."""


class Disk(Struct, frozen=True):
    """A disk that can be backed up: one with a writable image of its own.

    Attributes:
        dev: target name inside the domain, ``vda``.
        path: the image that the domain writes to; of a network disk its protocol and name.
        format: libvirt's driver type, ``qcow2`` or ``raw``.
        backing: the images below it, nearest first; empty without a backing chain.
        kind: libvirt's type of the disk: ``file``, or for pull jobs another one.
    """

    dev: str
    path: Path
    format: str
    backing: tuple["BackingImage", ...] = ()
    kind: str = "file"


class BackingImage(Struct, frozen=True):
    """One image of a backing chain, never written by the domain."""

    path: Path
    format: str


class SkippedDisk(Struct, frozen=True):
    """A disk that is not backed up, and why."""

    dev: str
    reason: str


class DomainInfo(Struct, frozen=True):
    """What libvirt says of a domain at one moment.

    Attributes:
        uuid: the domain's identity over renames, as lower-case text with dashes.
        domain_id: libvirt's number of a running domain, -1 when it is shut off.
        xml: the XML of the running domain, or of its persistent definition when shut off.
        swtpm_directory: where libvirt keeps the state of emulated TPMs; None if that is not known.
        running_directory: where it has a directory for each running domain, ``domain-ID-NAME``.
        is_saved: it is shut off, and its next start resumes a managed save image.
        is_suspended: it runs, and its guest has suspended itself to memory.
    """

    name: str
    uuid: str
    domain_id: int
    is_active: bool
    is_persistent: bool
    xml: str
    swtpm_directory: Path | None = None
    running_directory: Path | None = None
    is_saved: bool = False
    is_suspended: bool = False


class Sources(Struct, frozen=True):
    """Which image each disk is on; None where the domain has no such side.

    Attributes:
        live: by the running domain's XML; None when it is shut off.
        persistent: by its definition for the next start; None for a transient domain.
        saved: by the managed save image that its next start resumes; empty without one.
    """

    live: dict[str, Path] | None
    persistent: dict[str, Path] | None
    devs_with_block_job: frozenset[str] = frozenset()
    saved: Mapping[str, Path] = {}
