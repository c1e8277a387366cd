"""The ids and the blobs of an encrypted repository.

::

    id     BLAKE3 of the chunk's leaf, keyed: nobody without the key can tell what chunk it is
    blob   16 bytes   the head's tag (AES-256-SIV under the meta key, which is also its nonce)
           112        method, lengths, number, id, the pack key (wrapped), check of the payload
           ...        the chunk, compressed or not, and zeros (AES-256-GCM under the pack key)
           16         the payload's tag; the blob's length is a multiple of 16

Each blob carries its pack key, wrapped (``pack_keys.py``): so a prune, a repair or a copy moves it
as it is, without the key that opens it, and no damage to one place costs a whole pack. The nonce
is the number of the blob under its pack key, which is new for each process and each 64 MiB, so that
none comes twice. The check is a GMAC under a key that follows from the meta key: it shows whether
the payload is as it was written to those who cannot open it. Blobs begin at multiples of 16 bytes.
No byte of them tells a blob from random bytes, or where it ends.
"""

import struct
from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Final

import numpy as np
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from virtbackup_async.errors import CorruptError
from virtbackup_async.repository.format import pack_format, pack_tail
from virtbackup_async.repository.format.chunks import CHUNK_BYTES, ID_BYTES, chunk_id, short
from virtbackup_async.repository.format.cipher import BlobPlace, RunKeys
from virtbackup_async.repository.format.map_format import Leaves
from virtbackup_async.repository.format.pack_format import BlobHead, Data, Method, PackShape
from virtbackup_async.repository.keys.keyring import Generation, Keys
from virtbackup_async.repository.keys.pack_keys import NewPackKey, PackKeys, WrappedPackKeys

ALIGNMENT: Final = 16
_TAG_BYTES: Final = 16
_HEAD: Final = struct.Struct(f"<BBHIII{ID_BYTES}s48s{_TAG_BYTES}s")
HEAD_BYTES: Final = _TAG_BYTES + _HEAD.size
SHAPE: Final = PackShape(
    version=pack_format.SEALED_VERSION,
    blob_head_bytes=HEAD_BYTES,
    max_blob_bytes=HEAD_BYTES + CHUNK_BYTES + _TAG_BYTES,
    tail_bytes=pack_tail.TAIL_BYTES,
)
_BOUND: Final = struct.Struct(f"<4s16sBII{ID_BYTES}s")
_KEPT_KEYS: Final = 64
_METHODS: Final = frozenset(Method)


class _PackKey:
    """The key that new blobs are sealed with.

    Attributes:
        wrapped: the key, as it is in the heads.
    """

    def __init__(self, new: NewPackKey, generation: Generation) -> None:
        self.cipher = AESGCM(new.secret)
        self.wrapped = new.wrapped
        self.check = _check_cipher(generation, self.wrapped)
        self.blobs = 0
        self.length_bytes = 0


class _Head(Struct, frozen=True):
    """The head of a blob, opened."""

    blob: BlobHead
    number: int
    wrapped: bytes
    check: bytes
    generation: int

    @property
    def length_bytes(self) -> int:
        """The length of the whole blob."""
        return HEAD_BYTES + _padded(self.blob.stored_bytes) + _TAG_BYTES


class KeyedSealing:
    """The ``Sealing`` of a repository with keys.

    Attributes:
        pack_keys: makes and opens the keys of packs.
    """

    def __init__(self, keys: Keys, pack_keys: PackKeys | None = None) -> None:
        self._keys = keys
        self.pack_keys = pack_keys or WrappedPackKeys(keys)
        self._id_key = keys.ids.reveal()
        self._turn = Lock()
        self._pack_key: _PackKey | None = None
        self._opened: OrderedDict[bytes, AESGCM] = OrderedDict()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeyedSealing):
            return False
        is_sealed_for_the_same = self.pack_keys.public == other.pack_keys.public
        return is_sealed_for_the_same and self._keys.are(other._keys)

    def __hash__(self) -> int:
        return hash(self._keys.id)

    @property
    def shape(self) -> PackShape:
        return SHAPE

    @property
    def can_read(self) -> bool:
        """Whether the keys that are here can open chunks."""
        return self.pack_keys.can_read

    def id_of(self, leaf: bytes) -> bytes:
        return blake3(leaf, key=self._id_key).digest()

    def ids_of(self, leaves: Leaves) -> Leaves:
        data, key = leaves.tobytes(), self._id_key
        ids = b"".join(
            blake3(data[at : at + ID_BYTES], key=key).digest()
            for at in range(0, len(data), ID_BYTES)
        )
        return np.frombuffer(ids, dtype=f"V{ID_BYTES}")

    def seal(self, id_: bytes, data: memoryview, compressed: bytes) -> bytearray:
        method, payload = Method.ZSTD, memoryview(compressed)
        if len(compressed) >= len(data):
            method, payload = Method.AS_IT_IS, data
        key, number = self._next_number(len(payload))
        padding = bytes(_padded(len(payload)) - len(payload))
        blob = BlobHead(id_, method, len(data), len(payload))
        stored = b"".join((payload, padding)) if padding else payload
        sealed = bytearray(HEAD_BYTES + len(stored) + _TAG_BYTES)
        with memoryview(sealed)[HEAD_BYTES:] as place:
            key.cipher.encrypt_into(_nonce(number), stored, self._bound(blob), place)
            check = key.check.encrypt(_nonce(number), b"", place)
        head = _HEAD.pack(
            method, self.pack_keys.method, len(self._keys.generations), len(data), len(payload),
            number, id_, key.wrapped, check,
        )  # fmt: skip
        sealed[:HEAD_BYTES] = self._keys.newest.heads.encrypt(head, [b"blob head"])
        return sealed

    def open(self, blob: Data, id_: bytes) -> Data:
        head = self._checked_head(blob, id_)
        cipher = self._cipher(head)
        try:
            stored = cipher.decrypt(
                _nonce(head.number), memoryview(blob)[HEAD_BYTES:], self._bound(head.blob)
            )
        except InvalidTag as error:
            raise CorruptError(f"chunk {short(id_)} is damaged") from error
        payload = memoryview(stored)[: head.blob.stored_bytes]
        data = pack_format.decompressed(head.blob, payload)
        if len(data) != head.blob.length_bytes or self.id_of(chunk_id(data)) != id_:
            raise CorruptError(f"chunk {short(id_)} is damaged")
        return data

    def check(self, blob: Data, id_: bytes) -> None:
        if self.can_read:
            self.open(blob, id_)
            return
        head = self._checked_head(blob, id_)
        self.pack_keys.check(head.wrapped)
        check = _check_cipher(self._keys.generations[head.generation], head.wrapped)
        try:
            check.decrypt(_nonce(head.number), head.check, memoryview(blob)[HEAD_BYTES:])
        except InvalidTag as error:
            raise CorruptError(f"chunk {short(id_)} is damaged") from error

    def look(self, head: Data) -> BlobPlace:
        found = self._head(head)
        return BlobPlace(found.blob.id, found.length_bytes)

    def candidates(self, window: bytes, offset: int) -> Iterable[int]:
        return range(-offset % ALIGNMENT, len(window), ALIGNMENT)

    @property
    def run_keys(self) -> RunKeys | None:
        return None if self.pack_keys.public is None else self

    def run_of(self, blob: Data | bytearray) -> bytes:
        return self.pack_keys.run_of(self._head(memoryview(blob)).wrapped)

    def run_key(self, run: bytes) -> bytes:
        return self.pack_keys.run_key(run)

    def learn_from(self, other: RunKeys) -> None:
        if isinstance(other, KeyedSealing):
            self.pack_keys.learn_from(other.pack_keys)

    def forget(self) -> None:
        with self._turn:
            self._pack_key = None
            self._opened.clear()
        self.pack_keys.forget()

    def _next_number(self, length_bytes: int) -> tuple[_PackKey, int]:
        """Return the key for the next blob, and a number that no other blob has under it."""
        with self._turn:
            key = self._pack_key
            if key is None or key.length_bytes >= pack_format.PACK_BYTES:
                key = self._pack_key = _PackKey(self.pack_keys.new(), self._keys.newest)
            number = key.blobs
            key.blobs += 1
            key.length_bytes += length_bytes
            return key, number

    def _checked_head(self, blob: Data, id_: bytes) -> _Head:
        head = self._head(blob)
        if head.blob.id != id_ or len(blob) != head.length_bytes:
            raise CorruptError("a chunk is not where the index says")
        return head

    def _head(self, data: Data) -> _Head:
        sealed = bytes(data[:HEAD_BYTES])
        if len(sealed) == HEAD_BYTES:
            for number in reversed(range(len(self._keys.generations))):
                try:
                    opened = self._keys.generations[number].heads.decrypt(sealed, [b"blob head"])
                except InvalidTag:
                    continue
                return self._parsed(opened, number)
        raise CorruptError("the head of a chunk is damaged")

    def _cipher(self, head: _Head) -> AESGCM:
        with self._turn:
            found = self._opened.get(head.wrapped)
            if found is not None:
                self._opened.move_to_end(head.wrapped)
                return found
        secret = self.pack_keys.open(head.wrapped, head.generation)
        if secret is None:
            raise CorruptError(f"chunk {short(head.blob.id)} is damaged")
        found = AESGCM(secret)
        with self._turn:
            self._opened[head.wrapped] = found
            if len(self._opened) > _KEPT_KEYS:
                self._opened.popitem(last=False)
        return found

    def _parsed(self, opened: bytes, generation: int) -> _Head:
        method, wrapping, wrapped_in, length_bytes, stored_bytes, number, id_, wrapped, check = (
            _HEAD.unpack(opened)
        )
        is_ours = (wrapping, wrapped_in) == (self.pack_keys.method, generation + 1)
        is_known = method in _METHODS and is_ours
        if not is_known or not 0 < length_bytes <= CHUNK_BYTES or stored_bytes > length_bytes:
            raise CorruptError("the head of a chunk cannot be understood")
        blob = BlobHead(id_, Method(method), length_bytes, stored_bytes)
        return _Head(blob, number, wrapped, check, generation)

    def _bound(self, blob: BlobHead) -> bytes:
        """Return what a payload is bound to."""
        lengths = (blob.length_bytes, blob.stored_bytes)
        return _BOUND.pack(b"blob", self._keys.id, blob.method, *lengths, blob.id)


def _check_cipher(generation: Generation, wrapped: bytes) -> AESGCM:
    """Return the cipher that makes the checks of all blobs with one pack key."""
    return AESGCM(blake3(wrapped, key=generation.checks.reveal()).digest())


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "little")


def _padded(length_bytes: int) -> int:
    return -(-length_bytes // ALIGNMENT) * ALIGNMENT
