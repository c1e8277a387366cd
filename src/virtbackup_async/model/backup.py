"""A complete backup (definition) and a started one (pending), as their files describe them.

The fields of virt-backup keep their names and meaning. The fields that this program adds are
optional, so that files of either program can be read alike. docs/reference/formats.md is the
reference.

``gc=False``: a scan makes tens of thousands of them, and they contain no cycles. With the garbage
collector, ``list`` took a tenth longer.
"""

from enum import StrEnum
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from virtbackup_async.model.domain import NOTHING_TO_MISS
from virtbackup_async.model.pull import PullJob
from virtbackup_async.model.qcow2_options import Qcow2Options
from virtbackup_async.model.tracking import Reading

# Kinds of a domain's state; model/domain_state.py finds it.
NVRAM = "nvram"
VARSTORE = "varstore"
PSTORE = "pstore"
TPM = "tpm"


class Packager(Struct, frozen=True, gc=False):
    """The packager that wrote a backup, and the options that a reader needs."""

    type: str
    opts: dict[str, Any] = field(default_factory=dict)


class ImageRecord(Struct, frozen=True, gc=False):
    """One image file inside a backup.

    Attributes:
        file: its name inside the package.
        source: the path it was read from.
        format: ``qcow2``, ``raw``, or ``luks`` for a raw image that is encrypted in full.
        size_bytes: its length, holes included.
        data_bytes: its length without holes.
        stored_bytes: the growth of the package.
        digest: ``blake3-256k:<hex>``, see images/digest.py.
        new_bytes: how much of its data was new in the repository that it was backed up into.
        compressed_bytes: the space that the new data took there; None outside of repositories, and
            in backups of earlier versions, as ``new_bytes``. A copy keeps both.
    """

    file: str
    source: str
    format: str
    size_bytes: int
    data_bytes: int
    stored_bytes: int
    digest: str
    new_bytes: int | None = None
    compressed_bytes: int | None = None


class Original(Struct, frozen=True, gc=False):
    """The image that a domain wrote to, if the package has its data raw, by a pull job.

    ``layout`` is that of a qcow2 image; None if it could not be read.
    """

    format: str
    layout: Qcow2Options | None = None


class DiskRecord(Struct, frozen=True, gc=False):
    """A disk inside a backup: the image that the domain wrote to, and the chain below it.

    ``reading`` is None outside of repositories, and if QEMU did not export the disk.
    ``original`` is None if the disk was not pulled, and in backups of earlier versions.
    """

    image: ImageRecord
    backing: tuple[ImageRecord, ...] = ()
    reading: Reading | None = None
    original: Original | None = None

    @property
    def original_format(self) -> str | None:
        """The format of a pulled disk's image; None if unknown."""
        if self.original is not None:
            return self.original.format
        # Earlier versions did not record it, but only qcow2 can have a checkpoint.
        is_tracked = self.reading is not None and self.reading.checkpoint is not None
        return "qcow2" if is_tracked else None


class StateRecord(Struct, frozen=True, gc=False):
    """A file of the domain's state outside of its disks.

    Attributes:
        kind: ``NVRAM`` or another of the kinds above; a newer program may have more.
        image: the file; a small image like any other.
        owner: the name of the user that it belonged to; None if the user has no name.
    """

    kind: str
    image: ImageRecord
    owner: str | None = None


class Verification(Struct, frozen=True, gc=False):
    """The result of a backup's last ``verify``.

    Attributes:
        date: in seconds since the epoch.
        ok: whether the backup can be restored.
        digests: whether there were digests to compare; without them it was only read.
        error: the damage.
    """

    date: int
    ok: bool
    digests: bool
    error: str | None = None


class BackupState(StrEnum):
    """What is known of a backup: ``verify`` found it good or damaged, or never read it."""

    GOOD = "good"
    UNVERIFIED = "unverified"
    DAMAGED = "damaged"
    BROKEN = "broken"
    """No complete backup can be read from it."""


class CopiedFrom(Struct, frozen=True, gc=False):
    """Where a copied backup was made: a copy of a copy names the first target as well.

    Attributes:
        target: the target, as the configuration named it.
        repository: the id of the repository there, in hexadecimal digits; None without one.
        date: when this copy was made, in seconds since the epoch.
    """

    target: str
    repository: str | None
    date: int


class Definition(Struct, frozen=True, gc=False):
    """A complete backup.

    ``disks`` (dev to file name) is virt-backup's; ``records`` is empty in virt-backup's backups.
    ``date`` counts seconds since the epoch. ``state`` is ``running`` or ``shutoff``. A ``pinned``
    backup is never removed by ``clean``. ``method`` is ``snapshot``, ``pull``, or ``copy`` of a
    shut-off domain. ``skipped`` has the reasons why a disk (by dev) or state (by kind) is not in
    the backup. ``note`` is the admin's own text. ``copied_from`` is None unless it is a copy.
    ``host`` is the name of the host that made it, None in backups of earlier versions.
    ``accepted`` is when the admin said that the sudden change of its data is no reason for alarm,
    in seconds since the epoch.
    ``sequence`` counts the definitions of a domain in one target, and ``previous`` is the hash of
    the one before; None in backups of earlier versions. ``hash`` is this definition's own, as it
    was read; it is in no file.
    """

    name: str
    domain_id: int
    domain_name: str
    domain_xml: str
    disks: dict[str, str]
    version: str
    date: int
    packager: Packager
    domain_uuid: str | None = None
    records: dict[str, DiskRecord] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    quiesced: bool | None = None
    state: str | None = None
    method: str | None = None
    frozen_ms: int | None = None
    not_quiesced: str | None = None
    pinned: bool = False
    verified: Verification | None = None
    state_files: tuple[StateRecord, ...] = ()
    note: str | None = None
    copied_from: CopiedFrom | None = None
    host: str | None = None
    accepted: int | None = None
    sequence: int | None = None
    previous: str | None = None
    hash: str | None = None

    @property
    def backup_state(self) -> BackupState:
        """What is known of the backup."""
        if self.verified is None:
            return BackupState.UNVERIFIED
        return BackupState.GOOD if self.verified.ok else BackupState.DAMAGED

    @property
    def is_damaged(self) -> bool:
        """Whether ``verify`` found it damaged when it last read it."""
        return self.verified is not None and not self.verified.ok

    @property
    def lacks(self) -> dict[str, str]:
        """The skipped disks and state with data, and the reasons; see also ``lacking``."""
        return {
            what: reason for what, reason in self.skipped.items() if reason not in NOTHING_TO_MISS
        }

    @property
    def images(self) -> tuple[ImageRecord, ...]:
        """The records of the package's files; none in backups of virt-backup."""
        return (
            *(image for disk in self.records.values() for image in (disk.image, *disk.backing)),
            *(state.image for state in self.state_files),
        )


class PendingDisk(Struct, frozen=True):
    """The files that a started backup creates for one disk.

    Attributes:
        src: the domain's image before the backup, which it must be on afterwards.
        type: that image's format.
        snapshot: the overlay's path; None if the disk is copied without one.
        target: its file name inside the package.
        backing: file names, inside the package, of the images below it.
        committed: the image has all data of the overlay; the pivot comes next.
        scratch: the scratch image's path; None if the disk is not pulled.
        tracked: the backup's checkpoint includes it: its qcow2 image gets a dirty bitmap.
    """

    src: str
    type: str
    snapshot: str | None
    target: str
    backing: tuple[str, ...] = ()
    committed: bool = False
    scratch: str | None = None
    tracked: bool = False


class Pending(Struct, frozen=True):
    """A started backup: everything that an undo needs, written before the first action.

    ``quiesce``: the guest was to be frozen, so an undo may have to thaw it. ``state_files``
    are file names inside the package. ``socket`` is that of a pull job, None for other methods;
    ``checkpoint`` is the checkpoint that the job makes in libvirt, if any. ``copied_from`` is the
    target that a copy is read from: no domain is touched for it. None for a backup.
    """

    name: str
    domain_id: int
    domain_name: str
    domain_xml: str
    disks: dict[str, PendingDisk]
    version: str
    date: int
    packager: Packager
    domain_uuid: str | None = None
    quiesce: bool = False
    state_files: tuple[str, ...] = ()
    socket: str | None = None
    checkpoint: str | None = None
    copied_from: str | None = None

    @property
    def pull_job(self) -> PullJob | None:
        """The pull job that was begun, or about to begin; None for other methods."""
        if self.socket is None:
            return None
        scratch = {dev: Path(disk.scratch) for dev, disk in self.disks.items() if disk.scratch}
        return PullJob(Path(self.socket), scratch)

    @property
    def tracked_images(self) -> dict[str, Path]:
        """The qcow2 images, by dev, in which the backup's checkpoint may have made a bitmap."""
        return {dev: Path(disk.src) for dev, disk in self.disks.items() if disk.tracked}
