"""A segment of the index: which chunk is where in which pack, sorted by id.

::

    head      magic, version, repository                                      32 bytes
    records   id (32 bytes), number of the pack (u32), offset (u32), length (u32)
    fan-out   for each value of an id's first bits: how many records are below    u32 each
    packs     names of the packs, 16 bytes each
    tail      counts, BLAKE3 of all before                                    48 bytes

Ids are as good as random, so the fan-out leaves a few dozen records to search, however many there
are: a lookup reads about a KiB, and only the fan-out and the names stay in memory.
Pure: bytes in, values out. docs/reference/repository-format.md has the tables.
"""

import struct
from collections.abc import Iterable, Iterator
from itertools import starmap
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from virtbackup_async.errors import CorruptError, ForeignRepositoryError, NewerVersionError
from virtbackup_async.repository.format.chunks import ID_BYTES

MAGIC: Final = b"vbk-indx"
VERSION: Final = 1
PACK_NAME_BYTES: Final = 16
RECORDS_A_BUCKET: Final = 32
MAX_BITS: Final = 24
CHECKSUM_BYTES: Final = 32
_HEAD: Final = struct.Struct("<8sHHI16s")
_RECORD: Final = struct.Struct(f"<{ID_BYTES}sIII")
# The same for many at once; an id as four numbers, whose order is that of the ids.
RECORD_TYPE: Final = np.dtype(
    [("id", ">u8", ID_BYTES // 8), ("pack", "<u4"), ("offset", "<u4"), ("length", "<u4")]
)
_TAIL: Final = struct.Struct("<QII")
HEAD_BYTES: Final = _HEAD.size
RECORD_BYTES: Final = _RECORD.size
TAIL_BYTES: Final = _TAIL.size + CHECKSUM_BYTES

Records = NDArray[np.void]


class Record(NamedTuple):
    """The location of a chunk: number of the pack in the segment, offset and length of the blob."""

    id: bytes
    pack: int
    offset: int
    length: int


class Shape(Struct, frozen=True):
    """The counts in a segment, from which all offsets follow."""

    records: int
    bits: int
    packs: int

    @property
    def fan_out_offset(self) -> int:
        return HEAD_BYTES + self.records * RECORD_BYTES

    @property
    def packs_offset(self) -> int:
        return self.fan_out_offset + (4 << self.bits)

    @property
    def file_bytes(self) -> int:
        return self.packs_offset + self.packs * PACK_NAME_BYTES + TAIL_BYTES


def encode_head(repository_id: bytes) -> bytes:
    """Return the first bytes of a segment."""
    return _HEAD.pack(MAGIC, VERSION, 0, 0, repository_id)


def check_head(data: bytes, repository_id: bytes) -> None:
    """Check the first bytes of a segment.

    Raises:
        NewerVersionError: a newer program wrote it.
        ForeignRepositoryError: it is a segment of another repository.
        CorruptError: it is not a segment.
    """
    if len(data) < HEAD_BYTES or not data.startswith(MAGIC):
        raise CorruptError("it is not an index")
    _, version, flags, _, found = _HEAD.unpack_from(data)
    if (version, flags) != (VERSION, 0):
        raise NewerVersionError(f"its version {version} is not known")
    if found != repository_id:
        raise ForeignRepositoryError("it belongs to another repository")


def encode_records(records: Iterable[Record]) -> Records:
    """Return records as one array."""
    return decode_records(b"".join(starmap(_RECORD.pack, records)))


def decode_records(data: bytes) -> Records:
    """Return the records in ``data``."""
    return np.frombuffer(data, dtype=RECORD_TYPE)


def note_ends(ends: NDArray[np.int64], records: Records) -> None:
    """Raise the end of each pack to the end of the last blob that records name in it.

    Raises:
        CorruptError: a record names a pack that the segment does not have.
    """
    packs = records["pack"]
    if len(records) and int(packs.max()) >= len(ends):
        raise CorruptError("it names a pack that it has not")
    np.maximum.at(ends, packs, records["offset"].astype(np.int64) + records["length"])


def keys_of(records: Records) -> NDArray[np.uint64]:
    """Return the first 8 bytes of the ids as numbers; hardly any two ids share them."""
    return records["id"][:, 0].astype(np.uint64)


def encode_tail(shape: Shape) -> bytes:
    """Return the counts; the checksum follows them."""
    return _TAIL.pack(shape.records, shape.bits, shape.packs)


def decode_tail(data: bytes, file_bytes: int) -> Shape:
    """Return the shape of a segment of that length, from its last bytes.

    Raises:
        CorruptError: the segment is cut off, or its counts do not match its length.
    """
    if len(data) < TAIL_BYTES:
        raise CorruptError("it is cut off")
    shape = Shape(*_TAIL.unpack_from(data))
    if shape.bits > MAX_BITS or shape.file_bytes != file_bytes:
        raise CorruptError("it is cut off, or damaged")
    return shape


def bits_for(records: int) -> int:
    """Return the number of bits for the fan-out of so many records."""
    return min(MAX_BITS, max(0, (records // RECORDS_A_BUCKET).bit_length()))


def bucket_of(id_: bytes, bits: int) -> int:
    """Return an id's first bits as a number."""
    return int.from_bytes(id_[:4], "big") >> (32 - bits)


def buckets_of(keys: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    """Return the first bits of the first 8 bytes of ids as numbers."""
    # In two steps: a shift by all 64 bits would leave the number as it is.
    return (keys >> np.uint64(32) >> np.uint64(32 - bits)).astype(np.int64)


def find_in_bucket(bucket: bytes, id_: bytes) -> Iterator[tuple[int, Record]]:
    """Yield the records of an id in its bucket, each with its position in the bucket."""
    at = bucket.find(id_)
    while at >= 0:
        # The bytes of an id can also occur across two records.
        if at % RECORD_BYTES == 0:
            yield at // RECORD_BYTES, Record._make(_RECORD.unpack_from(bucket, at))
        at = bucket.find(id_, at + 1)


class FanOut:
    """Counts records as they are written, in order, and makes the table."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._counts = np.zeros(1 << bits, dtype=np.uint32)

    def add(self, keys: NDArray[np.uint64]) -> None:
        """Count records by the first 8 bytes of their ids, which ascend."""
        if len(keys):
            buckets = buckets_of(keys, self.bits)
            first = int(buckets[0])
            counts = np.bincount(buckets - first)
            self._counts[first : first + len(counts)] += counts.astype(np.uint32)

    def encode(self) -> bytes:
        """Return for each bucket the number of records in it and all buckets before it."""
        return np.cumsum(self._counts).astype("<u4").tobytes()


def decode_fan_out(data: bytes, shape: Shape) -> NDArray[np.uint32]:
    """Return the number of records before each bucket, followed by their total.

    Raises:
        CorruptError: they do not add up.
    """
    bounds = np.zeros((1 << shape.bits) + 1, dtype=np.uint32)
    bounds[1:] = np.frombuffer(data, dtype="<u4")
    if bounds[-1] != shape.records or (bounds[1:] < bounds[:-1]).any():
        raise CorruptError("its fan-out does not add up")
    return bounds
