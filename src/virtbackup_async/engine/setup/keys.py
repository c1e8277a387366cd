"""The ``key`` commands: who can open an encrypted repository.

Each emits a ``Finding`` for a slot that it lists or changes. A key is handed on as a ``Key``, which
shows nothing of itself; only ``add_paper`` returns a secret, for the caller to print.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.engine.inventory.recovery_key import recovery_lack
from virtbackup_async.errors import ConfigError
from virtbackup_async.events import Emit, Finding, Level
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import (
    Key,
    KeyChanges,
    list_key_slots,
    new_paper,
    open_key_changes,
    written_on_paper,
)

CHECK: Final = "keys"


class Paper(Struct, frozen=True):
    """What is to be printed.

    Attributes:
        target: whose repository the key opens.
        text: the recovery key, on one line.
    """

    target: str
    text: str

    def __repr__(self) -> str:
        return f"<a recovery key of {self.target}>"


async def list_keys(location: StorageLocation, emit: Emit) -> None:
    """Emit a finding for each key slot.

    Raises:
        NotFoundError: there is no encrypted repository.
        StorageError: it cannot be read.
    """
    found = await to_thread.run_sync(list_key_slots, location)
    for slot in found.slots:
        message = f"{slot.kind}, {slot.label}, made {slot.created}"
        emit(Finding(Level.INFO, CHECK, slot.name, message, code="key_slot"))
    for problem in found.damaged:
        emit(Finding(Level.WARNING, CHECK, str(location), problem, code="key_slot_damaged"))
    if found.is_sealed:
        message = "sealed: only the recovery key opens the disks; other keys, names and maps"
        emit(Finding(Level.INFO, CHECK, str(location), message, code="repository_sealed"))
    if (lack := recovery_lack(found)) is not None:
        advice = "Run 'virtbackup key paper', and keep the print away from this host."
        subject = str(location)
        emit(Finding(Level.WARNING, CHECK, subject, lack, advice, code="no_recovery_key"))


async def add_key(location: StorageLocation, key: Key, new: Key, label: str, emit: Emit) -> None:
    """Let a new key open the repository as well.

    Args:
        location: of the target.
        key: opens the repository.
        new: the new key.
        label: of its slot.
        emit: gets the finding.

    Raises:
        ConfigError: a key does not fit.
        StorageError: the target is full or not writable.
    """
    changes = await _open(location, key)
    name = await to_thread.run_sync(changes.add, new, label)
    _emit_added(emit, name, new.kind.value, label)


async def add_key_file(
    location: StorageLocation, key: Key, path: Path, label: str, emit: Emit
) -> None:
    """Let a key file open the repository as well, and make it if it is missing; as ``add_key``."""
    changes = await _open(location, key)
    name = await to_thread.run_sync(changes.add_key_file, path, label)
    _emit_added(emit, name, f"key file {path}", label)


async def add_paper(location: StorageLocation, key: Key, label: str) -> Paper:
    """Let a new recovery key open the repository as well; return it; raises as ``add_key``."""
    changes = await _open(location, key)
    _, paper = await to_thread.run_sync(changes.add_recovery, label)
    return Paper(str(location), await to_thread.run_sync(written_on_paper, paper))


async def make_paper(public: Path) -> Paper:
    """Make a recovery key that hosts can seal for; return it.

    Args:
        public: the new file for its public half, which is no secret.

    Raises:
        ConfigError: the file exists.
        StorageError: it cannot be made.
    """
    paper = await to_thread.run_sync(new_paper, public)
    target = f"repositories that are sealed for {public}"
    return Paper(target, await to_thread.run_sync(written_on_paper, paper))


async def remove_key(location: StorageLocation, key: Key, name: str, emit: Emit) -> None:
    """Remove a key slot.

    Raises:
        NotFoundError: there is none of that name.
        ConfigError: the key opens no slot, or this one.
        StorageError: the target is not writable.
    """
    changes = await _open(location, key)
    removed = await to_thread.run_sync(changes.remove, name)
    emit(
        Finding(
            Level.INFO,
            CHECK,
            name,
            f"removed: {removed.slot.kind}, {removed.slot.label}",
            "Whoever had this key may have kept what it opened: run 'virtbackup key rotate'.",
            code="key_removed",
        )
    )


async def rotate_keys(
    location: StorageLocation, key: Key, others: Sequence[Key], emit: Emit
) -> None:
    """Seal all that is written from now on with a new secret.

    Args:
        location: of the target.
        key: opens the repository.
        others: the keys of the other slots but recovery keys.
        emit: gets the finding.

    Raises:
        ConfigError: a slot's key is not among them; nothing was changed.
        LockHeldError: a clean or a repair is running.
        StorageError: the target is full or not writable.
    """
    changes = await _open(location, key)
    generations = await to_thread.run_sync(changes.rotate, others)
    message = f"rotated: everything new is sealed with key {generations}"
    emit(Finding(Level.OK, CHECK, str(location), message, code="keys_rotated"))


async def _open(location: StorageLocation, key: Key) -> KeyChanges:
    return await to_thread.run_sync(partial(open_key_changes, location, key))


def _emit_added(emit: Emit, name: str, what: str, label: str) -> None:
    emit(Finding(Level.OK, CHECK, name, f"added: {what}, {label}", code="key_added"))


def only_one(locations: Sequence[StorageLocation]) -> StorageLocation:
    """Return the one encrypted target among those of a configuration.

    Raises:
        ConfigError: there is none, or more than one.
    """
    encrypted = list(dict.fromkeys(each for each in locations if each.is_encrypted))
    if not encrypted:
        raise ConfigError("no group is encrypted", hint="Name a directory with --target.")
    if len(encrypted) > 1:
        names = ", ".join(map(str, encrypted))
        raise ConfigError(f"several targets are encrypted: {names}", hint="Name a group of one.")
    return encrypted[0]
