"""Checks what can be checked of an encrypted repository without any key: that nothing is damaged.

::

    pack           its head, and its checksum, which is in its tail         99 % of all bytes
    key slots      their checksums
    repository     its checksum
    all others     only their names, which nobody understands

Called by ``verify --without-key``, which can run where the target is and no key. It finds damage,
and no manipulation: anybody can compute a checksum anew.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Final

from msgspec import Struct

from virtbackup_async.errors import CorruptError
from virtbackup_async.files.refusals import reading
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.format import pack_format, pack_tail
from virtbackup_async.repository.storage.interface import Kind, Storage, StoredFile
from virtbackup_async.repository.storage.key_access import encrypted_at, list_key_slots
from virtbackup_async.repository.storage.layout import (
    LEASES,
    list_packs,
    pack_file,
    token_of,
)

_PIECE_BYTES: Final = 4 * 1024 * 1024


class CheckedPack(Struct, frozen=True):
    """A pack, its length, and what is wrong with it; None if nothing is."""

    where: str
    size_bytes: int
    error: str | None


def check_without_key(
    location: StorageLocation, on_step: Callable[[], None]
) -> Iterator[CheckedPack]:
    """Yield each pack of an encrypted repository, read in full, and damaged key slots. Blocks.

    Packs whose writer may be running are left out.

    Args:
        location: of the target; its key file is not used.
        on_step: called often; may raise.

    Raises:
        NotFoundError: there is no encrypted repository.
        CorruptError: the repository file is damaged.
        StorageError: the target cannot be read.
    """
    storage, found = encrypted_at(location, hint="Verify it without --without-key.")
    packs = list(list_packs(storage))
    held = _leases(storage)
    for pack in packs:
        if token_of(pack) not in held:
            checked = _check(storage, pack, found.id, on_step)
            if checked is not None:
                yield checked
    for problem in list_key_slots(location).damaged:
        yield CheckedPack(storage.where(), 0, problem)


def _leases(storage: Storage) -> frozenset[str]:
    """Return the tokens of all leases, dead or alive: to break one would be to write."""
    try:
        return frozenset(storage.names(LEASES, {Kind.FILE}))
    except FileNotFoundError:
        return frozenset()


def _check(
    storage: Storage, pack: bytes, repository_id: bytes, on_step: Callable[[], None]
) -> CheckedPack | None:
    """Check a pack; None if it was removed meanwhile."""
    where, size_bytes = storage.where(pack_file(pack)), 0
    try:
        with reading("pack", where), closing(storage.open(pack_file(pack))) as file:
            size_bytes = file.size_bytes
            head = file.read_up_to(pack_format.HEAD_BYTES, 0)
            pack_format.check_head(head, repository_id, pack, pack_format.SEALED_VERSION)
            _compare(file, on_step)
    except FileNotFoundError:
        return None
    except CorruptError as error:
        return CheckedPack(where, size_bytes, error.message)
    return CheckedPack(where, size_bytes, None)


def _compare(file: StoredFile, on_step: Callable[[], None]) -> None:
    """Compare a pack with the checksum in its tail.

    Raises:
        CorruptError: they differ, or there is no tail.
    """
    end = max(0, file.size_bytes - pack_tail.TAIL_BYTES)
    expected = pack_tail.decode(file.read_up_to(pack_tail.TAIL_BYTES, end), file.size_bytes)
    checksum = 0
    for at in range(0, end, _PIECE_BYTES):
        on_step()
        data = file.read_once(min(_PIECE_BYTES, end - at), at)
        checksum = pack_tail.checksum(data, checksum)
    if checksum != expected:
        raise CorruptError("its checksum differs")
