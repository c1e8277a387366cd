"""Finds the chunks of a pack by reading only the pack, for when the index is lost.

::

    head | blob | blob | b?ob ...... | blob | bl
                         damaged header       cut off
                         search for the next one whose checksum is right

Called by ``repair``. Invariant: each chunk that is found was read, and has its id.
"""

from collections.abc import Iterator
from contextlib import closing, suppress

from virtbackup_async.errors import CorruptError
from virtbackup_async.files.refusals import is_of_the_host, reading
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.format.cipher import BlobPlace
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
                place = _head_at(repository, file, offset)
            except CorruptError:
                offset = _next_head(repository, file, offset + 1)
                continue
            if _is_good(repository, file, place, offset):
                yield place.id, Location(pack, offset, place.length_bytes)
                offset += place.length_bytes
            else:
                offset = _next_head(repository, file, offset + 1)


def _head_at(repository: Repository, file: StoredFile, offset: int) -> BlobPlace:
    sealing = repository.sealing
    return sealing.look(file.read(sealing.shape.blob_head_bytes, offset))


def _is_good(repository: Repository, file: StoredFile, place: BlobPlace, offset: int) -> bool:
    try:
        blob = file.read(place.length_bytes, offset)
        repository.sealing.check(blob, place.id)
    except OSError as error:
        if is_of_the_host(error):
            raise  # `reading` reports it: the chunk is not lost
        return False
    except CorruptError:
        return False
    return True


def _next_head(repository: Repository, file: StoredFile, offset: int) -> int:
    """Return where the next good header of a blob begins; the end of the file if there is none."""
    sealing = repository.sealing
    head_bytes = sealing.shape.blob_head_bytes
    while offset < file.size_bytes:
        window = file.read_up_to(_WINDOW_BYTES, offset)
        for found in sealing.candidates(window, offset):
            with suppress(CorruptError):
                head = window[found : found + head_bytes]
                if len(head) < head_bytes:
                    head = file.read(head_bytes, offset + found)
                sealing.look(head)
                return offset + found
        # A header can begin in the window's last bytes and end after it.
        offset += max(1, len(window) - len(pack_format.BLOB_MAGIC) + 1)
    return file.size_bytes
