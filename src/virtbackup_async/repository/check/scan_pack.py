"""Finding the chunks of a pack by reading the pack alone: what is left when the index is lost.

::

    head | blob | blob | b?ob ...... | blob | bl
                         damaged head         cut off
                         look for the next one whose checksum is right

Called by ``repair``. Invariant: each chunk that comes out was read, and has its id.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from virtbackup_async.errors import CorruptError
from virtbackup_async.files.closing import close
from virtbackup_async.files.refusals import is_of_the_host
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.index.segments import Location
from virtbackup_async.repository.storage.layout import pack_file, read_exactly
from virtbackup_async.repository.storage.reading import reading

_WINDOW_BYTES = 1 << 20


def chunks_of_pack(path: Path, pack: bytes) -> Iterator[tuple[bytes, Location]]:
    """Give the chunks of a pack that are good, with their places. Blocks.

    Raises:
        CorruptError: it cannot be read.
        StorageError: it cannot be read now.
        FileNotFoundError: it is gone.
    """
    with reading("pack", path):
        fd = pack_file(path).open_file()
        try:
            end = os.fstat(fd).st_size
            offset = pack_format.HEAD_BYTES
            while offset < end:
                try:
                    head = _head_at(fd, offset)
                except CorruptError:
                    offset = _next_head(fd, offset + 1, end)
                    continue
                length = pack_format.BLOB_HEAD_BYTES + head.stored_bytes
                if _is_good(fd, head, offset):
                    yield head.id, Location(pack, offset, length)
                    offset += length
                else:
                    offset = _next_head(fd, offset + 1, end)
        finally:
            close(fd)


def _head_at(fd: int, offset: int) -> pack_format.BlobHead:
    return pack_format.decode_blob_head(read_exactly(fd, pack_format.BLOB_HEAD_BYTES, offset))


def _is_good(fd: int, head: pack_format.BlobHead, offset: int) -> bool:
    try:
        payload = read_exactly(fd, head.stored_bytes, offset + pack_format.BLOB_HEAD_BYTES)
        pack_format.decode_chunk(head, payload)
    except OSError as error:
        if is_of_the_host(error):
            raise  # `reading` says so: it is not lost
        return False
    except CorruptError:
        return False
    return True


def _next_head(fd: int, offset: int, end: int) -> int:
    """Return where the next head of a blob begins that is whole; ``end`` if there is none."""
    while offset < end:
        window = os.pread(fd, _WINDOW_BYTES, offset)
        found = window.find(pack_format.BLOB_MAGIC)
        while found >= 0:
            try:
                _head_at(fd, offset + found)
            except CorruptError:
                found = window.find(pack_format.BLOB_MAGIC, found + 1)
            else:
                return offset + found
        # A head may begin in the window's last bytes and end behind it.
        offset += max(1, len(window) - len(pack_format.BLOB_MAGIC) + 1)
    return end
