"""Checks of a target: is it there, writable, private, on its own disk, and large enough?"""

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from anyio import to_thread

from virtbackup_async.catalog.existing import open_existing
from virtbackup_async.catalog.scanning import FoundBackup, Scan
from virtbackup_async.config.schema import Group
from virtbackup_async.errors import ConfigError, CorruptError, StorageError
from virtbackup_async.events import Finding, Level
from virtbackup_async.files.mounts import mount_of, read_mounts, space_at
from virtbackup_async.files.trial import lacks_of
from virtbackup_async.model.amounts import size
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import open_inner, probe_storage, refuse_copy

CHECK = "target"
ROOT = Path("/")
_LACK_ADVICE = (
    "docs/how-to/operations.md says what that means for backups, and for which file systems."
)
_STORE_ADVICE = "docs/how-to/object-stores.md says what a store must be able to do."
_KEYS_ADVICE = (
    "Give the group of the copies the same `encryption`, and a target without a repository; or "
    "copy on another machine, with --recovery."
)
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


async def check_target(target: StorageLocation) -> list[Finding]:
    """Inspect a target; write a temporary file into a directory of this machine."""
    if not target.is_local:
        return await to_thread.run_sync(lambda: list(_check_elsewhere(target)))
    return await to_thread.run_sync(lambda: list(_check(target.directory)))


async def check_copies(target: StorageLocation, copies: StorageLocation) -> list[Finding]:
    """Warn if copies of a target's backups protect less than the target does, or nothing."""
    subject, found = str(copies), []
    if target.is_encrypted and not copies.is_encrypted:
        message = f"copies of the encrypted backups in {target} are not encrypted"
        advice = "Name a group as their target, and write `encryption` there."
        found += [Finding(Level.WARNING, CHECK, subject, message, advice, code="copies_in_clear")]
    found += await to_thread.run_sync(_keys_of_copies, target, copies)
    if target.is_local and copies.is_local:
        places = target.directory, copies.directory
        if await to_thread.run_sync(_are_on_one_file_system, *places):
            message = f"copies of the backups in {target} go to the same file system"
            advice = "Copy to another disk, best on another machine."
            found.append(
                Finding(
                    Level.WARNING, CHECK, subject, message, advice, code="copies_beside_backups"
                )
            )
    return found


def _keys_of_copies(target: StorageLocation, copies: StorageLocation) -> list[Finding]:
    """Report copies of sealed backups that this host cannot make."""
    have_same_files = (target.key_file, target.sealed_for) == (copies.key_file, copies.sealed_for)
    message = f"only the recovery key opens the backups in {target}, so this host cannot copy them"
    try:
        if have_same_files and open_existing(copies) is None:
            return []  # the first copy makes it, with the same keys
        if have_same_files or target.sealed_for is None:
            refuse_copy(target, copies)
            return []
    except ConfigError as error:
        message = error.message
    except (OSError, StorageError, CorruptError):
        return []  # ``check_target`` reports it
    return [Finding(Level.PROBLEM, CHECK, str(copies), message, _KEYS_ADVICE, code="copies_sealed")]


def _are_on_one_file_system(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_dev == other.stat().st_dev
    except OSError:
        return False  # ``check_target`` reports it


def _check_elsewhere(target: StorageLocation) -> Iterator[Finding]:
    subject = str(target)
    try:
        open_inner(target).names("", ())
        is_new = open_existing(target) is None
        weaknesses = probe_storage(target)
    except (OSError, StorageError) as error:
        message = error.message if isinstance(error, StorageError) else str(error)
        hint = error.hint if isinstance(error, StorageError) else None
        yield Finding(Level.PROBLEM, CHECK, subject, message, hint, code="target_unreachable")
        return
    yield Finding(Level.OK, CHECK, subject, "can be listed", code="target_listed")
    if is_new:
        message = "has no repository yet: the first backup makes it, and its key file"
        yield Finding(Level.INFO, CHECK, subject, message, code="target_new")
    for weakness in weaknesses:
        yield Finding(Level.WARNING, CHECK, subject, weakness, _STORE_ADVICE, code="target_lacks")


def _check(target: Path) -> Iterator[Finding]:
    subject = str(target)
    try:
        status = target.stat()
    except OSError as error:
        message = f"cannot be used: {error.strerror}"
        advice = "Create it, or mount the file system that holds it."
        yield Finding(Level.PROBLEM, CHECK, subject, message, advice, code="target_missing")
        return
    if not stat.S_ISDIR(status.st_mode):
        yield Finding(
            Level.PROBLEM,
            CHECK,
            subject,
            "is not a directory",
            "Correct `target`.",
            code="target_no_directory",
        )
        return
    writable = _writable(target)
    yield writable
    if writable.level == Level.OK:
        yield from _lacks(target)
    yield from check_owner(subject, status, os.geteuid())
    yield _where(target)


def _writable(target: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=target, prefix=".virtbackup-") as probe:
            probe.write(b"probe")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        message = f"cannot be written to: {error.strerror}"
        advice = "Mount it read-write, free some space, or run as the user that owns it."
        return Finding(
            Level.PROBLEM, CHECK, str(target), message, advice, code="target_not_writable"
        )
    return Finding(Level.OK, CHECK, str(target), "can be written to", code="target_writable")


def _lacks(target: Path) -> Iterator[Finding]:
    """Try the features of the file system that backups need."""
    try:
        found = lacks_of(target)
    except StorageError as error:
        yield Finding(
            Level.PROBLEM, CHECK, str(target), error.message, error.hint, code="target_trial_failed"
        )
        return
    for lack in found:
        message = f"its file system {lack}"
        yield Finding(Level.WARNING, CHECK, str(target), message, _LACK_ADVICE, code="target_lacks")


def check_owner(subject: str, status: os.stat_result, uid: int) -> Iterator[Finding]:
    """Report if users other than root and ``uid`` could add files to the backups or remove some."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & OTHERS_WRITE:
        message = f"other users may write to it: mode {mode:04o}"
        yield Finding(
            Level.WARNING,
            CHECK,
            subject,
            message,
            f"Run chmod go-w {subject}.",
            code="target_others_write",
        )
    if status.st_uid not in (0, uid):
        message = f"belongs to user {status.st_uid}, who may replace whatever is in it"
        yield Finding(
            Level.WARNING,
            CHECK,
            subject,
            message,
            f"Run chown root {subject}.",
            code="target_owner",
        )


def _where(target: Path) -> Finding:
    subject = str(target)
    try:
        mount = mount_of(target.resolve(), read_mounts())
        free_bytes = space_at(target).free_bytes
    except OSError as error:
        return Finding(
            Level.INFO,
            CHECK,
            subject,
            f"file system unknown: {error.strerror}",
            code="file_system_unknown",
        )
    if mount is None:
        return Finding(Level.INFO, CHECK, subject, f"{size(free_bytes)} free", code="file_system")
    place = f"{mount.type} on {mount.source}, mounted at {mount.point}, {size(free_bytes)} free"
    if mount.point == ROOT:
        advice = "Mount a disk of its own there; a full root disk stops the host."
        message = f"lies on the root file system: {place}"
        return Finding(Level.WARNING, CHECK, subject, message, advice, code="file_system_root")
    return Finding(Level.OK, CHECK, subject, place, code="file_system")


async def check_room(target: StorageLocation, groups: Sequence[Group], scan: Scan) -> list[Finding]:
    """Compare the free space with the size of each domain's last backup."""
    last = last_backups(groups, scan)
    needed_bytes = sum(stored_bytes(found) for found in last.values())
    if not needed_bytes or not target.is_local:
        return []  # an object store does not say how much is left
    try:
        free_bytes = (await to_thread.run_sync(space_at, target.directory)).free_bytes
    except OSError as error:
        message = f"free space unknown: {error.strerror}"
        return [
            Finding(
                Level.PROBLEM,
                "room",
                str(target),
                message,
                "Repair the file system.",
                code="room_unknown",
            )
        ]
    return [judge_room(str(target), needed_bytes, free_bytes)]


def judge_room(subject: str, needed_bytes: int, free_bytes: int) -> Finding:
    """Judge whether the next run fits: once is necessary, twice is better."""
    amounts = f"the last backups took {size(needed_bytes)}, {size(free_bytes)} are free"
    advice = "Free some space, or lower the retention and run `virtbackup clean`."
    if free_bytes < needed_bytes:
        return Finding(
            Level.PROBLEM,
            "room",
            subject,
            f"the next run will not fit: {amounts}",
            advice,
            code="room_none",
        )
    if free_bytes < 2 * needed_bytes:
        return Finding(
            Level.WARNING,
            "room",
            subject,
            f"room for one more run: {amounts}",
            advice,
            code="room_little",
        )
    return Finding(Level.OK, "room", subject, amounts, code="room")


def last_backups(groups: Sequence[Group], scan: Scan) -> dict[str, FoundBackup]:
    """Return the newest backup of each domain of the groups; the scan is oldest first."""
    return {
        found.definition.domain_name: found
        for found in scan.complete
        if any(group.includes(found.definition.domain_name) for group in groups)
    }


def stored_bytes(found: FoundBackup) -> int:
    """Return the bytes that a backup takes in its target; 0 if that was not recorded."""
    records = found.definition.records.values()
    return sum(
        image.stored_bytes for record in records for image in (record.image, *record.backing)
    )
