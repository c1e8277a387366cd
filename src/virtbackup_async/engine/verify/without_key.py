"""``verify --without-key``: look for damage in encrypted targets where there is no key."""

from collections.abc import Sequence
from functools import partial

from anyio import from_thread, to_thread

from virtbackup_async.engine.clean.plan import clean_targets
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import CorruptError
from virtbackup_async.events import Emit, Finding, Level, RunStarted
from virtbackup_async.model.amounts import size
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import check_without_key

CHECK = "packs"


async def verify_without_key(runtime: Runtime, groups: Sequence[str] = ()) -> None:
    """Read all packs of groups' encrypted targets, and compare them with their checksums.

    Emits a finding for each damaged one, and one for each target.

    Raises:
        NotFoundError: a group does not exist, or a target has no encrypted repository.
        CorruptError: something is damaged.
        StorageError: a target cannot be read.
    """
    runtime.emit(RunStarted("verify", ()))
    targets = await to_thread.run_sync(clean_targets, runtime.config, groups)
    damaged = 0
    for target in dict.fromkeys(each.catalog.target for each in targets):
        damaged += await to_thread.run_sync(partial(_check, target, runtime.emit))
    if damaged:
        raise CorruptError(
            f"damaged: {damaged} of the files that can be checked without a key",
            hint="Run 'virtbackup verify' where the key is, to see which backups it concerns.",
        )


def _check(target: StorageLocation, emit: Emit) -> int:
    packs = bytes_read = damaged = 0
    for checked in check_without_key(target, from_thread.check_cancelled):
        packs += 1
        bytes_read += checked.size_bytes
        if checked.error is not None:
            damaged += 1
            message = checked.error.removeprefix(f"pack is damaged: {checked.where}: ")
            emit(Finding(Level.PROBLEM, CHECK, checked.where, message, code="pack_damaged"))
    message = f"packs read: {packs}, {size(bytes_read)}; damaged: {damaged}"
    level = Level.INFO if damaged else Level.OK
    emit(Finding(level, CHECK, str(target), message, code="packs_read"))
    return damaged
