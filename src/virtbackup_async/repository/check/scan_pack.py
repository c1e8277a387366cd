"""Finds the chunks of a pack by reading only the pack, for when the index is lost.

::

    head | blob | blob | b?ob ...... | blob | bl
                         damaged header       cut off
                         search for the next one whose checksum is right

Called by ``repair``. Invariant: each chunk that is found was read, and has its id.
"""

from collections.abc import Iterator
from contextlib import closing

from virtbackup_async.errors import CorruptError
from virtbackup_async.files.refusals import is_of_the_host, reading
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.index.segments import Location
from virtbackup_async.repository.storage.interface import StoredFile
from virtbackup_async.repository.storage.layout import Repository, pack_file

_WINDOW_BYTES = 1 << 20


def chunks_of_pack(repository: Repository, pack: bytes) -> Iterator[tuple[bytes, Location]]:
    """Yield the good chunks of a pack, with their locations. Blocks.

    Raises:
        CorruptError: it cannot be read.
        StorageError: it cannot be read now.
        FileNotFoundError: it is missing.
    """
    where = repository.where_is(pack)
    with reading("pack", where), closing(repository.storage.open(pack_file(pack))) as file:
        offset = pack_format.HEAD_BYTES
        while offset < file.size_bytes:
            try:
                head = _head_at(file, offset)
            except CorruptError:
                offset = _next_head(file, offset + 1)
                continue
            length = pack_format.BLOB_HEAD_BYTES + head.stored_bytes
            if _is_good(repository, file, head, offset):
                yield head.id, Location(pack, offset, length)
                offset += length
            else:
                offset = _next_head(file, offset + 1)


def _head_at(file: StoredFile, offset: int) -> pack_format.BlobHead:
    return pack_format.decode_blob_head(file.read(pack_format.BLOB_HEAD_BYTES, offset))


def _is_good(
    repository: Repository, file: StoredFile, head: pack_format.BlobHead, offset: int
) -> bool:
    try:
        blob = file.read(pack_format.BLOB_HEAD_BYTES + head.stored_bytes, offset)
        repository.sealing.open(blob, head.id)
    except OSError as error:
        if is_of_the_host(error):
            raise  # `reading` reports it: the chunk is not lost
        return False
    except CorruptError:
        return False
    return True


def _next_head(file: StoredFile, offset: int) -> int:
    """Return where the next good header of a blob begins; the end of the file if there is none."""
    while offset < file.size_bytes:
        window = file.read_up_to(_WINDOW_BYTES, offset)
        found = window.find(pack_format.BLOB_MAGIC)
        while found >= 0:
            try:
                _head_at(file, offset + found)
            except CorruptError:
                found = window.find(pack_format.BLOB_MAGIC, found + 1)
            else:
                return offset + found
        # A header can begin in the window's last bytes and end after it.
        offset += max(1, len(window) - len(pack_format.BLOB_MAGIC) + 1)
    return file.size_bytes
