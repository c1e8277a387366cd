"""The selection of a backup: disks with their backing chains, and the state outside the disks.

It is made before anything is touched. A disk that cannot be backed up is skipped with a reason, and
the other disks are backed up. If its kind is the reason, that is normal. If it has a problem, it is
a *broken* disk: the backup lacks a disk that it should have, and reports that.
"""

from collections.abc import Iterator, Mapping, Sequence

from anyio import to_thread
from msgspec import Struct, field
from msgspec.structs import replace

from virtbackup_async import errors
from virtbackup_async.engine.backup.state import DomainState, find_state
from virtbackup_async.engine.domain_states import block_job_error
from virtbackup_async.engine.host_state import Host
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model import domain_xml, host_paths
from virtbackup_async.model.disk_xml import SUPPORTED_FORMATS, Reader
from virtbackup_async.model.domain import NOT_WANTED, BackingImage, Disk, DomainInfo, SkippedDisk
from virtbackup_async.model.names import is_marked

IN_PLAIN_TEXT = (
    "is encrypted where it lies, and in plain text in the backup, and meanwhile in the scratch "
    "image: `method: snapshot` keeps it encrypted"
)


class BrokenDisk(Struct, frozen=True):
    """A disk that should be backed up, but cannot be because of the error."""

    dev: str
    error: errors.VirtBackupError


class Selection(Struct, frozen=True):
    """The disks to back up, the skipped ones, and the domain's state.

    With ``pull``, QEMU exports the disks; without, their images are read. ``chains`` has, by dev,
    the images of the exported disks, nearest first; for a running domain only the first. A disk
    without a chain is copied as the files that it is, even with ``pull``: its data is encrypted.
    ``unsaved`` are devices that are not disks and store data of the guest. ``broken`` disks should
    be backed up; those that exist are among the ``skipped``.
    """

    disks: tuple[Disk, ...]
    skipped: tuple[SkippedDisk, ...]
    state: DomainState
    pull: bool = False
    chains: Mapping[str, tuple[BackingImage, ...]] = field(default_factory=dict)
    unsaved: tuple[SkippedDisk, ...] = ()
    broken: tuple[BrokenDisk, ...] = ()

    @property
    def left_out(self) -> tuple[SkippedDisk, ...]:
        """All devices whose data the backup does not hold."""
        known = {disk.dev for disk in self.skipped}
        missing = (disk for disk in self.broken if disk.dev not in known)
        not_there = (SkippedDisk(disk.dev, disk.error.message) for disk in missing)
        return (*self.skipped, *not_there, *self.unsaved)

    @property
    def others(self) -> tuple[str, ...]:
        """Devs that a snapshot or job must leave alone."""
        return tuple(disk.dev for disk in self.skipped)

    @property
    def in_plain_text(self) -> tuple[str, ...]:
        """Disks whose images are encrypted, and that are read decrypted."""
        return tuple(disk.dev for disk in self.disks if disk.encrypted and disk.dev in self.chains)


async def select_disks(
    info: DomainInfo, wanted: Sequence[str], host: Host, *, pull: bool = False
) -> Selection:
    """Choose the disks of a domain; find their backing files, and the domain's state.

    Args:
        info: the domain, with its XML.
        wanted: disk targets; empty for all that can be backed up.
        host: has the paths of the targets; a disk must have no image in them.
        pull: whether QEMU will serve them, as raw images without backing files.

    Raises:
        VirtBackupError: no disk can be backed up; it is the first wanted disk's error.
        RollbackError: the domain still runs on the overlay of a backup that was killed.
    """
    reader = Reader.of(pull=pull, is_active=info.is_active)
    possible, unfit = domain_xml.disks_of(info, pull=pull)
    choice = _Choice(reader, skipped=[*unfit], broken=[*_not_there(info, wanted, possible, unfit)])
    with_job = domain_xml.devs_with_block_job(info.xml)
    for disk in possible:
        if wanted and disk.dev not in wanted:
            choice.skip(disk, NOT_WANTED)
            continue
        try:
            with errors.about_disk(disk.dev):
                chain = await _chain(info, disk, reader, with_job, host)
        except (errors.ImageError, errors.HypervisorError) as error:
            choice.broken.append(BrokenDisk(disk.dev, error))
            choice.skip(disk, error.within(info.name))
        else:
            choice.take(disk, chain)
    if not choice.disks:
        raise _nothing(info, choice)
    return Selection(
        disks=tuple(choice.disks),
        skipped=tuple(choice.skipped),
        state=await find_state(host.images, info),
        pull=pull,
        chains=choice.chains,
        unsaved=host_paths.unsaved(info.xml),
        broken=tuple(choice.broken),
    )


class _Choice(Struct):
    """The disks of a ``Selection``, which are chosen one after the other."""

    reader: Reader
    skipped: list[SkippedDisk]
    broken: list[BrokenDisk]
    disks: list[Disk] = []
    chains: dict[str, tuple[BackingImage, ...]] = {}

    def skip(self, disk: Disk, reason: str) -> None:
        self.skipped.append(SkippedDisk(disk.dev, reason))

    def take(self, disk: Disk, chain: tuple[BackingImage, ...]) -> None:
        """Take a disk, or skip it if this reader cannot read its images."""
        reason = _why_not(chain, self.reader)
        if reason is not None:
            self.skip(disk, reason)
        elif self.reader is Reader.COPY or _is_kept_encrypted(disk, chain, self.reader):
            self.disks.append(_as_files(disk, chain, self.reader))
        else:
            self.chains[disk.dev] = chain
            self.disks.append(replace(disk, format="raw", backing=()))


def _nothing(info: DomainInfo, choice: _Choice) -> errors.VirtBackupError:
    if choice.broken:
        return choice.broken[0].error
    reasons = ", ".join(f"{disk.dev}: {disk.reason}" for disk in choice.skipped) or "it has none"
    return errors.DiskNotFoundError(f"no disk that can be backed up ({reasons})", domain=info.name)


def _not_there(
    info: DomainInfo,
    wanted: Sequence[str],
    possible: Sequence[Disk],
    unfit: Sequence[SkippedDisk],
) -> Iterator[BrokenDisk]:
    names = {disk.dev for disk in possible}
    reasons = {disk.dev: disk.reason for disk in unfit}
    for dev in wanted:
        if dev in names:
            continue
        why = reasons.get(dev)
        have = ", ".join(sorted(names)) or "none"
        error = errors.DiskNotFoundError(
            f"disk {dev} cannot be backed up: {why}" if why else f"no disk {dev}, it has {have}",
            domain=info.name,
            disk=dev,
            hint="Change `disks` of this host in the configuration.",
        )
        yield BrokenDisk(dev, error)


async def _chain(
    info: DomainInfo, disk: Disk, reader: Reader, with_job: frozenset[str], host: Host
) -> tuple[BackingImage, ...]:
    """Return the disk's images; those that QEMU has open are not read."""
    _check_not_ours(info, disk)
    what = f"{info.name}: {disk.dev}"
    if disk.path.is_absolute():
        await to_thread.run_sync(host.refuse_in_target, what, [disk.path])
    if disk.dev in with_job:
        raise block_job_error(info.name, [disk.dev])
    if reader is Reader.PULL_JOB:
        return (BackingImage(disk.path, disk.format),)
    await _check_readable(host.images, info.name, disk)
    chain = await host.images.chain(BackingImage(disk.path, disk.format), disk.told)
    files = [path for image in chain for path in image.files]
    await to_thread.run_sync(host.refuse_in_target, what, files)
    return chain


def _why_not(chain: Sequence[BackingImage], reader: Reader) -> str | None:
    """Return why a disk cannot be read, by the headers of its images; None if it can."""
    for image in chain:
        if reader is Reader.COPY and image.data_file is not None:
            where = f"the data of {image.path} are in another file, {image.data_file}"
            return f"{where}: only `method: pull` takes it"
        is_known = image.format in SUPPORTED_FORMATS or image.encrypted
        if reader is Reader.QEMU_NBD and not is_known:
            return (
                f"the image below, {image.path}, is {image.format}: only `method: snapshot` "
                "takes it, or `pull` while the domain runs"
            )
        if reader is Reader.QEMU_NBD and image.encrypted and image.data_file is not None:
            return "encrypted, with its data in another file: only taken while the domain runs"
    return None


def _is_kept_encrypted(disk: Disk, chain: Sequence[BackingImage], reader: Reader) -> bool:
    """Return whether a disk's data cannot be decrypted, because qemu-nbd has no key."""
    is_encrypted = disk.encrypted or any(image.encrypted for image in chain)
    return reader is Reader.QEMU_NBD and is_encrypted


def _as_files(disk: Disk, chain: Sequence[BackingImage], reader: Reader) -> Disk:
    """Return a disk that is copied as the files that it is."""
    if reader is Reader.QEMU_NBD and disk.encrypted and disk.format == "raw":
        # This name distinguishes it from a disk that was read decrypted.
        return replace(disk, format="luks", backing=())
    return replace(disk, backing=tuple(chain[1:]))


def _check_not_ours(info: DomainInfo, disk: Disk) -> None:
    if is_marked(disk.path):
        raise errors.RollbackError(
            f"{disk.dev} still runs on the overlay of a killed backup, {disk.path}",
            disk=disk.dev,
            domain=info.name,
            hint="Run `virtbackup clean -b` first.",
        )


async def _check_readable(images: ImageHost, domain: str, disk: Disk) -> None:
    try:
        await images.check_readable(disk.path)
    except errors.ImageError as error:
        raise errors.ImageError(
            f"image of {disk.dev} cannot be read: {error.message}",
            disk=disk.dev,
            domain=domain,
            hint="Check that it exists on this host, and run as a user that may read it.",
        ) from error
