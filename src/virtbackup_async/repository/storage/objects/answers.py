"""What a store answers: facts about objects, and their contents."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from msgspec import Struct

from virtbackup_async.repository.storage.objects.requests import Answer, LyingError

COMPARED_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 1 << 20


class LocalWriteError(Exception):
    """A file of this host cannot be written: an error that is not the store's."""


class Meta(Struct, frozen=True):
    """The facts about an object.

    Attributes:
        size_bytes: its length.
        e_tag: differs for each content; None if the store has none.
        modified_s: when it was written, by the store's clock.
    """

    size_bytes: int
    e_tag: str | None
    modified_s: float


class Found(Struct, frozen=True):
    """An object, or the beginning of it."""

    data: bytes
    meta: Meta


class Range(Struct, frozen=True):
    """A range of an object, in the library's memory."""

    data: memoryview
    meta: Meta


def last_step(name: str) -> str:
    """Return the last step of a name."""
    return name.rpartition("/")[2]


def is_marker(entry: Answer) -> bool:
    """Return whether an entry is a directory's: SeaweedFS lists one that has become empty."""
    return entry["e_tag"] == '""' and not entry["size"]


def meta_of(entry: Answer) -> Meta:
    """Return the facts that an entry of a list, or an answer, has about an object."""
    return Meta(int(entry["size"]), entry["e_tag"], entry["last_modified"].timestamp())


def first_bytes(result: Answer, length: int) -> bytes:
    """Return so many bytes of an answer."""
    data = bytearray()
    for piece in result.stream(min_chunk_size=_PIECE_BYTES):
        data += piece
        if len(data) >= length:
            break
    if len(data) < length:
        raise LyingError
    return bytes(data[:length])


def write_into(file: BinaryIO, result: Answer) -> int:
    """Write an answer into a local file, from its start; return its length in bytes.

    Raises:
        LocalWriteError: the file cannot be written.
    """
    length = 0
    try:
        file.seek(0)
        file.truncate()
    except OSError as error:
        raise LocalWriteError from error
    for piece in result.stream(min_chunk_size=_PIECE_BYTES):
        length += len(piece)
        try:
            file.write(piece)
        except OSError as error:
            raise LocalWriteError from error
    try:
        file.flush()
    except OSError as error:
        raise LocalWriteError from error
    return length


def has_content(found: Found, parts: Sequence[bytes]) -> bool:
    """Return whether an object has a content, as far as its first bytes and its length show."""
    own = b"".join(_head_of(parts, COMPARED_BYTES))
    return found.data == own and found.meta.size_bytes == sum(map(len, parts))


def tag_of(meta: Meta) -> str:
    """Return what tells an object from every other one that has its name."""
    # Some stores give fractions of a second in lists alone.
    return f"{plain_tag(meta.e_tag)} {meta.size_bytes} {int(meta.modified_s)}"


def plain_tag(e_tag: str | None) -> str:
    """Return a tag without the signs around it, which differ between answers."""
    return (e_tag or "").removeprefix("W/").strip('"')


def _head_of(parts: Sequence[bytes], length: int) -> Iterator[bytes]:
    for part in parts:
        if length <= 0:
            return
        yield part[:length]
        length -= len(part)
