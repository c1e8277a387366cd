"""engine/clean/removal.py: how the end of a removal is reported."""

import pytest

from virtbackup_async.engine.clean.removal import report_removal
from virtbackup_async.errors import LockHeldError, StorageError
from virtbackup_async.events import BackupRemoved, RemovalFailed


async def reported(outcome):
    """The events after a removal that ends like this."""
    events = []

    async def remove():
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    await report_removal(events.append, "g", "web", "b", remove())
    return events


@pytest.mark.parametrize("freed_bytes", [0, 5])
async def test_what_was_removed_is_told_even_if_it_frees_nothing(freed_bytes):
    assert await reported(freed_bytes) == [BackupRemoved("g", "web", "b", freed_bytes)]


async def test_nothing_is_told_of_a_backup_that_was_gone():
    assert await reported(None) == []


async def test_a_backup_in_use_is_told_apart_from_an_error():
    """The advice for a busy one is shown on its own; that of an error in its text as well."""
    busy = LockHeldError("it is being restored", hint="Give --wait.")
    assert await reported(busy) == [
        RemovalFailed("g", "web", "b", "it is being restored", True, busy.code, "Give --wait.")
    ]
    full = StorageError("cannot write x", hint="Mount it.")
    assert await reported(full) == [
        RemovalFailed("g", "web", "b", "cannot write x. Mount it.", False, full.code, "Mount it.")
    ]


async def test_other_errors_are_not_hidden():
    with pytest.raises(ValueError, match="a defect"):
        await reported(ValueError("a defect"))
