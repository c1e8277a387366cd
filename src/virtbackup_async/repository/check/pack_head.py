"""What can be seen of a pack without reading it: is it there, how long, and is its head right?

Called by ``checking`` for each pack with something that is needed.
"""

import os
from pathlib import Path

from msgspec import Struct

from virtbackup_async.errors import CorruptError, NewerVersionError
from virtbackup_async.files.closing import close
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.storage.layout import Repository
from virtbackup_async.repository.storage.reading import reading


class PackHead(Struct, frozen=True):
    """What a pack looks like.

    Attributes:
        usable_bytes: up to where chunks can be read; 0 if it is missing, or another pack.
        error: what is wrong; None if nothing is.
        has_damaged_head: its chunks are good by themselves then, and readers do not need the head.
        is_newer: it may be good, for a newer program.
    """

    usable_bytes: int
    error: str | None = None
    has_damaged_head: bool = False
    is_newer: bool = False


def look_at_pack_head(repository: Repository, pack: bytes, least_bytes: int) -> PackHead:
    """Look at a pack that has to have some length. Blocks."""
    path = repository.pack_path(pack)
    try:
        with reading("pack", path):
            return _look(path, repository, pack, least_bytes)
    except FileNotFoundError:
        return PackHead(0, f"pack is missing: {path}")
    except CorruptError as error:
        return PackHead(0, error.message, is_newer=isinstance(error, NewerVersionError))


def _look(path: Path, repository: Repository, pack: bytes, least_bytes: int) -> PackHead:
    fd = repository.pack(pack).open_file()
    try:
        length_bytes = os.fstat(fd).st_size
        head = os.pread(fd, pack_format.HEAD_BYTES, 0)
    finally:
        close(fd)
    if not pack_format.is_whole_head(head):
        return PackHead(
            length_bytes, f"pack is damaged: {path}: its head is damaged", has_damaged_head=True
        )
    pack_format.check_head(head, repository.id, pack)
    if length_bytes < least_bytes:
        error = f"pack is damaged: {path}: it is cut off at {length_bytes} bytes"
        return PackHead(length_bytes, error)
    return PackHead(length_bytes)
