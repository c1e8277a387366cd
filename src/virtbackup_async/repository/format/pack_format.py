"""Packs: files of about 64 MiB that hold one chunk after the other.

::

    pack head   magic, version, repository, pack, checksum                          64 bytes
    blob        blob head: method, cipher, lengths, id, checksum                    64 bytes
                the chunk, compressed or not
    blob        ...

Pure: bytes in, values out. The chunks of a pack can be found without the index, by reading the
whole pack. docs/reference/repository-format.md has the tables.
"""

import struct
import zlib
from enum import IntEnum
from typing import Final

import zstandard
from msgspec import Struct

from virtbackup_async.errors import CorruptError, NewerVersionError
from virtbackup_async.repository.format.chunks import CHUNK_BYTES, ID_BYTES, chunk_id, short

MAGIC: Final = b"vbk-pack"
VERSION: Final = 1
SEALED_VERSION: Final = 2
PACK_BYTES: Final = 64 * 1024 * 1024
BLOB_MAGIC: Final = b"blob"
_HEAD: Final = struct.Struct("<8sHHI16s16s12x")
_BLOB: Final = struct.Struct(f"<4sBBHII{ID_BYTES}s12x")
_CHECKSUM: Final = struct.Struct("<I")
HEAD_BYTES: Final = _HEAD.size + _CHECKSUM.size
BLOB_HEAD_BYTES: Final = _BLOB.size + _CHECKSUM.size

Data = bytes | memoryview
MAX_BLOB_BYTES: Final = BLOB_HEAD_BYTES + CHUNK_BYTES


class PackShape(Struct, frozen=True):
    """How the packs of a repository are divided.

    Attributes:
        version: in their heads.
        blob_head_bytes: the length of the head of a blob.
        max_blob_bytes: no blob is longer.
        tail_bytes: the length of what follows the last blob.
    """

    version: int
    blob_head_bytes: int
    max_blob_bytes: int
    tail_bytes: int


PLAIN_SHAPE: Final = PackShape(VERSION, BLOB_HEAD_BYTES, MAX_BLOB_BYTES, 0)


class Method(IntEnum):
    """How a chunk is stored."""

    AS_IT_IS = 0
    ZSTD = 1


_METHODS: Final = frozenset(Method)


class BlobHead(Struct, frozen=True):
    """The head of a blob: the id of the chunk, and the length and form of what follows."""

    id: bytes
    method: Method
    length_bytes: int
    stored_bytes: int


def encode_head(repository_id: bytes, pack: bytes, version: int = VERSION) -> bytes:
    """Return the first bytes of a pack."""
    return _sealed(_HEAD.pack(MAGIC, version, 0, 0, repository_id, pack))


def is_whole_head(data: bytes) -> bool:
    """Whether the head of a pack, of any version, has the right checksum."""
    return len(data) >= HEAD_BYTES and data.startswith(MAGIC) and _is_whole(data[:HEAD_BYTES])


def check_head(data: bytes, repository_id: bytes, pack: bytes, expected: int = VERSION) -> None:
    """Check the head of a pack against the name, the repository and the version of the pack.

    Raises:
        NewerVersionError: it has another version: a newer program wrote it.
        CorruptError: it is damaged, or belongs to another pack.
    """
    if not is_whole_head(data):
        raise CorruptError("its head is damaged")
    _, version, flags, _, found_repository, found_pack = _HEAD.unpack_from(data)
    if (version, flags) != (expected, 0):
        raise NewerVersionError(f"its version {version} is not known")
    if (found_repository, found_pack) != (repository_id, pack):
        raise CorruptError("it is another pack than its name says")


def repository_of(data: bytes, pack: bytes) -> tuple[int, bytes]:
    """Return the version and the id of the repository of a pack, from the pack's first bytes.

    Raises:
        NewerVersionError: a newer program wrote them.
        CorruptError: they are damaged, or belong to another pack.
    """
    if not is_whole_head(data):
        raise CorruptError("its head is damaged")
    _, version, _, _, repository, _ = _HEAD.unpack_from(data)
    check_head(data, repository, pack, min(version, SEALED_VERSION))
    return version, bytes(repository)


def encode_blob_head(head: BlobHead) -> bytes:
    """Return the head of a blob. Cipher and key are 0: not encrypted."""
    return _sealed(
        _BLOB.pack(BLOB_MAGIC, head.method, 0, 0, head.length_bytes, head.stored_bytes, head.id)
    )


def encode_blob(id_: bytes, data: memoryview, compressed: bytes) -> bytes:
    """Return the blob of a chunk, compressed if that makes it shorter."""
    method, payload = Method.ZSTD, compressed
    if len(compressed) >= len(data):
        method, payload = Method.AS_IT_IS, bytes(data)
    return encode_blob_head(BlobHead(id_, method, len(data), len(payload))) + payload


def decode_blob_head(data: Data) -> BlobHead:
    """Return the head of a blob from its first bytes.

    Raises:
        CorruptError: it is damaged, or of a newer program.
    """
    if len(data) < BLOB_HEAD_BYTES or not _is_whole(data[:BLOB_HEAD_BYTES]):
        raise CorruptError("the head of a chunk is damaged")
    magic, method, cipher, key, length_bytes, stored_bytes, id_ = _BLOB.unpack_from(data)
    known = magic == BLOB_MAGIC and method in _METHODS and (cipher, key) == (0, 0)
    if not known or not 0 < length_bytes <= CHUNK_BYTES or stored_bytes > length_bytes:
        raise CorruptError("the head of a chunk cannot be understood")
    return BlobHead(id_, Method(method), length_bytes, stored_bytes)


def check_blob_length(length_bytes: int, shape: PackShape) -> None:
    """Check the length of a blob before memory is allocated for it.

    Raises:
        CorruptError: no blob is that long.
    """
    if length_bytes > shape.max_blob_bytes:
        raise CorruptError("the index names a chunk that is too long")


def decode_blob(blob: Data, id_: bytes) -> Data:
    """Return the chunk of an id from the blob that the index names for it.

    Raises:
        CorruptError: the blob is damaged, or holds another chunk.
    """
    head = decode_blob_head(blob)
    if head.id != id_ or len(blob) != BLOB_HEAD_BYTES + head.stored_bytes:
        raise CorruptError("a chunk is not where the index says")
    return decode_chunk(head, memoryview(blob)[BLOB_HEAD_BYTES:])


def decode_chunk(head: BlobHead, payload: Data) -> Data:
    """Return a chunk from the payload of its blob.

    Raises:
        CorruptError: its bytes do not have its id.
    """
    data = decompressed(head, payload)
    if chunk_id(data) != head.id or len(data) != head.length_bytes:
        raise CorruptError(f"chunk {short(head.id)} is damaged")
    return data


def decompressed(head: BlobHead, payload: Data) -> Data:
    """Return a chunk from the payload of its blob, without a comparison with its id.

    Raises:
        CorruptError: the payload is damaged.
    """
    if head.method is Method.AS_IT_IS:
        return payload
    try:
        # The library allocates as much as the frame says, which may be anything.
        if zstandard.frame_content_size(payload) == head.length_bytes:
            return zstandard.ZstdDecompressor().decompress(payload)
    except (zstandard.ZstdError, MemoryError, ValueError) as error:
        raise CorruptError(f"chunk {short(head.id)} is damaged: {error}") from error
    raise CorruptError(f"chunk {short(head.id)} is damaged: its length differs")


def _sealed(data: bytes) -> bytes:
    return data + _CHECKSUM.pack(zlib.crc32(data))


def _is_whole(data: Data) -> bool:
    return _CHECKSUM.pack(zlib.crc32(data[: -_CHECKSUM.size])) == data[-_CHECKSUM.size :]
