"""A domain as the backup needs it: its identity, its state and its disks; and what serves it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct, field

Version = tuple[int, int, int]


class BackingImage(Struct, frozen=True):
    """One image of a chain; those below the first are never written by the domain.

    Attributes:
        path: its path.
        format: its format; ``luks`` if its raw data are encrypted in full.
        data_file: the file with a qcow2 image's data, if that is another one.
        encrypted: its data can only be read with a key.
    """

    path: Path
    format: str
    data_file: Path | None = None
    encrypted: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it consists of."""
        return (self.path,) if self.data_file is None else (self.path, self.data_file)


class ToldChain(Struct, frozen=True):
    """The images below a disk by the domain's XML, nearest first.

    Attributes:
        images: the images that it names.
        is_whole: there are no others; else the last one's header names the next.
        reason: why the next one cannot be read.
        data_file: the file with the data of the disk's own image, if the XML names one.
    """

    images: tuple[BackingImage, ...] = ()
    is_whole: bool = False
    reason: str = ""
    data_file: Path | None = None


class Volume(Struct, frozen=True):
    """The path of a disk's volume in a storage pool; without one, ``reason`` says why.

    ``kind`` is libvirt's type of a disk that is on it: ``file``, ``block`` or ``network``.
    """

    path: Path | None
    kind: str = "file"
    reason: str = ""


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
"""Reasons to skip a disk that lose none of the domain's own data."""


class Disk(Struct, frozen=True):
    """A disk that can be backed up: one with a writable image of its own.

    Attributes:
        dev: target name inside the domain, ``vda``.
        path: the image that the domain writes to; of a network disk its protocol and name.
        format: libvirt's driver type, ``qcow2`` or ``raw``.
        backing: the images below it, nearest first; empty without a backing chain.
        kind: libvirt's type of the disk: ``file``, or for pull jobs another one.
        encrypted: QEMU encrypts the guest's writes before they reach the image.
        told: the images below by the domain's XML.
    """

    dev: str
    path: Path
    format: str
    backing: tuple[BackingImage, ...] = ()
    kind: str = "file"
    encrypted: bool = False
    told: ToldChain = ToldChain()


class SkippedDisk(Struct, frozen=True):
    """A disk that is not backed up, and why."""

    dev: str
    reason: str


class DomainInfo(Struct, frozen=True):
    """The facts that libvirt reports about a domain at one moment.

    Attributes:
        uuid: the domain's identity over renames, as lower-case text with dashes.
        domain_id: libvirt's number of a running domain, -1 when it is shut off.
        xml: the XML of the running domain, or of its persistent definition when shut off.
        swtpm_directory: the directory with the state of emulated TPMs; None if unknown.
        running_directory: the directory of the running domains' directories, ``domain-ID-NAME``.
        state_directories: the directories with the files of UEFI variables and pstore.
        is_saved: it is shut off, and its next start resumes a managed save image.
        is_suspended: it runs, and its guest has suspended itself to memory.
        volumes: by dev, the disks of which the XML only names a volume of a pool.
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
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    state_directories: frozenset[Path] = frozenset()


class Sources(Struct, frozen=True):
    """The image that each disk is on; None if the domain has no such side.

    Attributes:
        live: by the running domain's XML; None when it is shut off.
        persistent: by its definition for the next start; None for a transient domain.
        saved: by the managed save image that its next start resumes; empty without one.
    """

    live: dict[str, Path] | None
    persistent: dict[str, Path] | None
    devs_with_block_job: frozenset[str] = frozenset()
    saved: Mapping[str, Path] = {}


class HostVersions(Struct, frozen=True):
    """The versions of a connection's libvirt and hypervisor; ``driver`` is libvirt's, ``QEMU``."""

    driver: str
    libvirt: Version
    hypervisor: Version
