"""The disks of a domain: which can be backed up, from which images, with room for the overlay."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from anyio import to_thread

from virtbackup_async.engine.doctor.amounts import GIB, MIB, gib
from virtbackup_async.engine.doctor.target import free_bytes_at
from virtbackup_async.engine.selection import NOT_WANTED, Selection, select_disks
from virtbackup_async.engine.state_files import missing
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.events import Finding, Level
from virtbackup_async.images import qemu_img
from virtbackup_async.model.domain import Disk, DomainInfo

CHECK = "disk"
USUAL_SKIPS = ("a cdrom", "a floppy", NOT_WANTED)
OVERLAY_LEAST_BYTES = 256 * MIB
OVERLAY_USUAL_BYTES = GIB


async def check_disks(info: DomainInfo, wanted: Sequence[str]) -> list[Finding]:
    """Choose the disks as a backup would, and open each image of their chains."""
    try:
        selection = await select_disks(info, wanted)
    except VirtBackupError as error:
        message = error.message.removeprefix(f"{info.name}: ")
        return [Finding(Level.PROBLEM, CHECK, info.name, message, error.hint)]
    findings = [*_left_out(info, selection), *_missing_state(info, selection)]
    for disk in selection.disks:
        findings.append(await _check_chain(info, disk))
        if info.is_active:
            findings.append(await to_thread.run_sync(_check_room, info.name, disk))
    return findings


def _left_out(info: DomainInfo, selection: Selection) -> Iterator[Finding]:
    for disk in selection.skipped:
        message = f"{disk.dev} is not backed up: {disk.reason}"
        if disk.reason in USUAL_SKIPS:
            yield Finding(Level.INFO, CHECK, info.name, message)
        else:
            advice = "Back up what is on it by other means."
            yield Finding(Level.WARNING, CHECK, info.name, message, advice)


def _missing_state(info: DomainInfo, selection: Selection) -> Iterator[Finding]:
    for kind, reason in selection.state.missing.items():
        message = missing(info.name, kind, reason).message
        advice = "Without it the restored guest may not start: save it by other means."
        yield Finding(Level.WARNING, "state", info.name, message, advice)


async def _check_chain(info: DomainInfo, disk: Disk) -> Finding:
    try:
        size_bytes = (await qemu_img.image_info(disk.path, disk.format)).virtual_size
        for image in disk.backing:
            await qemu_img.image_info(image.path, image.format)
    except VirtBackupError as error:
        message = f"{disk.dev}: {error.message}"
        advice = error.hint or "See that every image of its backing chain is there."
        return Finding(Level.PROBLEM, CHECK, info.name, message, advice)
    below = f", {len(disk.backing)} below it" if disk.backing else ""
    message = f"{disk.dev}: {disk.format} of {gib(size_bytes)}{below}, {disk.path}"
    return Finding(Level.OK, CHECK, info.name, message)


def _check_room(domain: str, disk: Disk) -> Finding:
    directory = disk.path.resolve().parent
    try:
        return judge_room(domain, disk.dev, directory, free_bytes_at(directory))
    except OSError as error:
        message = f"{disk.dev}: {directory}: {error.strerror}"
        return Finding(Level.PROBLEM, "overlay", domain, message, "Mend the file system.")


def judge_room(domain: str, dev: str, directory: Path, free_bytes: int) -> Finding:
    """Judge the room for an overlay: it takes what the guest writes while it is copied."""
    message = f"{dev}: {gib(free_bytes)} free for its overlay in {directory}"
    if free_bytes >= OVERLAY_USUAL_BYTES:
        return Finding(Level.OK, "overlay", domain, message)
    level = Level.WARNING if free_bytes >= OVERLAY_LEAST_BYTES else Level.PROBLEM
    advice = "Free some space there: a guest whose overlay cannot grow is paused."
    return Finding(level, "overlay", domain, message, advice)


def any_on(images: Sequence[Path], target: Path) -> bool:
    """Tell whether one of the images lies on the file system of ``target``. Blocks."""
    device = _device(target)
    return device is not None and any(_device(image) == device for image in images)


def _device(path: Path) -> int | None:
    try:
        return path.stat().st_dev
    except OSError:
        return None
