"""A finished backup (definition) and a started one (pending), as the files beside the data say.

The fields of virt-backup keep their names and meaning; what this project adds is optional, so that
files of either program read alike. docs/reference/formats.md is the reference.

``gc=False``: a scan makes them by the ten thousand, and they hold no circles, so Python need not
look for garbage among them: that took a tenth of the time of ``list``.
"""

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
    """Which packager wrote a backup, and the options a reader needs."""

    type: str
    opts: dict[str, Any] = field(default_factory=dict)


class ImageRecord(Struct, frozen=True, gc=False):
    """One image file inside a backup.

    Attributes:
        file: its name inside the package.
        source: the path it was read from.
        format: ``qcow2``, ``raw``, or ``luks`` of a raw image that is encrypted as a whole.
        size_bytes: its apparent length, holes included.
        data_bytes: what of it was not hole.
        stored_bytes: what the package grew by.
        digest: ``blake3-256k:<hex>``, see images/digest.py.
    """

    file: str
    source: str
    format: str
    size_bytes: int
    data_bytes: int
    stored_bytes: int
    digest: str


class Original(Struct, frozen=True, gc=False):
    """The image that a domain wrote to, where the package holds what was pulled from it, raw.

    ``layout`` is that of a qcow2 image; None where it could not be read.
    """

    format: str
    layout: Qcow2Options | None = None


class DiskRecord(Struct, frozen=True, gc=False):
    """A disk inside a backup: the image that the domain wrote to, and the chain below it.

    ``reading`` is None outside of repositories, and where QEMU did not serve the disk.
    ``original`` is None where it was not pulled, and in backups of earlier versions.
    """

    image: ImageRecord
    backing: tuple[ImageRecord, ...] = ()
    reading: Reading | None = None
    original: Original | None = None

    @property
    def original_format(self) -> str | None:
        """The format of the image that a pulled disk was on; None where nobody knows."""
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
        owner: the name of the user whom it belonged to; None where it has none.
    """

    kind: str
    image: ImageRecord
    owner: str | None = None


class Verification(Struct, frozen=True, gc=False):
    """What ``verify`` found when it last read a backup back.

    Attributes:
        date: when, in seconds since the epoch.
        ok: whether the backup can be restored.
        digests: whether there were digests to compare; without them it could only be read.
        error: what was wrong.
    """

    date: int
    ok: bool
    digests: bool
    error: str | None = None


class Definition(Struct, frozen=True, gc=False):
    """A complete backup.

    ``disks`` (dev to file name) is virt-backup's; ``records`` is ours, and empty in its backups.
    ``date`` counts seconds since the epoch. ``state`` is ``running`` or ``shutoff``. A ``pinned``
    backup is never removed by ``clean``. ``method`` is ``snapshot``, ``pull``, or ``copy`` of a
    domain that was shut off. ``skipped`` says why a disk (by dev) or state
    (by kind) is not in the backup. ``note`` is what the admin wanted to remember.
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

    @property
    def is_damaged(self) -> bool:
        """Whether ``verify`` found it damaged when it last read it."""
        return self.verified is not None and not self.verified.ok

    @property
    def lacks(self) -> dict[str, str]:
        """What was left out of it that holds data, and why; more is known by ``lacking``."""
        return {
            what: reason for what, reason in self.skipped.items() if reason not in NOTHING_TO_MISS
        }

    @property
    def images(self) -> tuple[ImageRecord, ...]:
        """All that is recorded of the package's files; nothing in backups of virt-backup."""
        return (
            *(image for disk in self.records.values() for image in (disk.image, *disk.backing)),
            *(state.image for state in self.state_files),
        )


class PendingDisk(Struct, frozen=True):
    """What a started backup is about to make for one disk.

    Attributes:
        src: the image the domain was on before, and must be on again.
        type: that image's format.
        snapshot: the overlay's path; None where the disk is copied without one.
        target: its file name inside the package.
        backing: file names, inside the package, of the images below it.
        committed: all that the overlay holds is in the image; the pivot was about to come.
        scratch: the scratch image's path; None where the disk is not pulled.
        tracked: the backup's checkpoint is for it too: its image, a qcow2, gets a dirty bitmap.
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
    """A backup that was started: all that is needed to undo it, written before anything is done.

    ``quiesce`` says that the guest was to be frozen, so it may have to be thawed. ``state_files``
    are file names inside the package. ``socket`` is that of a pull job, None for other methods;
    ``checkpoint`` what that makes in libvirt beside the job, if it does.
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

    @property
    def pull_job(self) -> PullJob | None:
        """The pull job that was made, or about to be made; None for other methods."""
        if self.socket is None:
            return None
        scratch = {dev: Path(disk.scratch) for dev, disk in self.disks.items() if disk.scratch}
        return PullJob(Path(self.socket), scratch)

    @property
    def tracked_images(self) -> dict[str, Path]:
        """The qcow2 images, by dev, in which the backup's checkpoint may have made a bitmap."""
        return {dev: Path(disk.src) for dev, disk in self.disks.items() if disk.tracked}
