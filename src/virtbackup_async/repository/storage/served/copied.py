"""Files of a served target that are looked up at many places: copied to this host when opened.

A segment of the index, or a map, is read completely when it is opened, to compare its checksum.
Afterwards each look at it would wait for an answer: on a line of 50 ms, an hour for the chunks of
16 GiB. So it is read once, many requests under way at once, into an unnamed file.
"""

import os
import tempfile
from io import FileIO
from typing import Final

from virtbackup_async.repository.storage.interface import StoredFile
from virtbackup_async.repository.storage.layout import INDEX
from virtbackup_async.repository.storage.local_files import LocalFile

_PIECE_BYTES: Final = 16 << 20


def is_copied(name: str) -> bool:
    """Return whether a file is copied when it is opened."""
    return name.endswith(".map") or name.startswith(f"{INDEX}/")


def copied(file: StoredFile) -> StoredFile:
    """Return a copy of an open file, which is closed; the file itself if there is no space. Blocks.

    Raises:
        CorruptError: the file has become shorter.
        OSError: it cannot be read.
    """
    copy = _unnamed_file()
    for at in range(0, file.size_bytes, _PIECE_BYTES):
        if copy is None:
            return file
        try:
            piece = file.read(min(_PIECE_BYTES, file.size_bytes - at), at)
        except BaseException:
            file.close()
            copy.close()
            raise
        if not _has_written(copy, piece):
            copy.close()
            return file
    if copy is None:
        return file
    file.close()
    with copy:
        return LocalFile(file.where, os.dup(copy.fileno()))


def _unnamed_file() -> FileIO | None:
    try:
        return tempfile.TemporaryFile(buffering=0)
    except OSError:
        return None


def _has_written(copy: FileIO, piece: bytes) -> bool:
    """Write a piece; return False if there is no space for it."""
    try:
        return copy.write(piece) == len(piece)
    except OSError:
        return False
