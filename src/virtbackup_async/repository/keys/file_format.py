"""The content of a sealed file: all files of an encrypted target but packs, leases and keys.

::

    head       magic, version, generation, salt                       48 bytes
    segment    64 KiB, sealed with AES-256-GCM                        65552 bytes
    ...
    segment    the last one may be shorter                            16 bytes more than it holds

The key follows from the head, the repository and the clear name, so the file opens under no other
name; the nonce of a segment is its number and whether it is the last, so none can be moved, left
out or cut off. Pure: bytes in, values out.
"""

import secrets
import struct
from contextlib import suppress
from typing import Final

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from virtbackup_async.errors import CorruptError, NewerVersionError
from virtbackup_async.repository.keys.keyring import Generation, Keys

MAGIC: Final = b"vbk-file"
VERSION: Final = 2
_SALT_BYTES: Final = 32
_HEAD: Final = struct.Struct(f"<8sHH4x{_SALT_BYTES}s")
_NONCE: Final = struct.Struct("<QI")
HEAD_BYTES: Final = _HEAD.size
SEGMENT_BYTES: Final = 64 * 1024
TAG_BYTES: Final = 16
SEALED_SEGMENT_BYTES: Final = SEGMENT_BYTES + TAG_BYTES


class Identity(Struct, frozen=True):
    """What a file is bound to: the repository, and the clear name in it."""

    repository_id: bytes
    name: str


class FileCipher:
    """Seals or opens the segments of one file."""

    def __init__(self, head: bytes, cipher: AESGCM) -> None:
        self.head = head
        self._cipher = cipher

    def seal(self, data: bytes | bytearray | memoryview, number: int, *, is_last: bool) -> bytes:
        """Return a sealed segment."""
        return self._cipher.encrypt(_NONCE.pack(number, is_last), data, None)

    def open(self, sealed: bytes | memoryview, number: int, *, is_last: bool) -> bytes:
        """Return the content of a segment.

        Raises:
            CorruptError: it is not what was written as this segment of this file.
        """
        try:
            return self._cipher.decrypt(_NONCE.pack(number, is_last), sealed, None)
        except InvalidTag as error:
            raise CorruptError("it is damaged, or another file than its name says") from error


def new_cipher(keys: Keys, identity: Identity) -> FileCipher:
    """Return the cipher for a new file."""
    salt = secrets.token_bytes(_SALT_BYTES)
    head = _HEAD.pack(MAGIC, VERSION, len(keys.generations), salt)
    return FileCipher(head, _cipher(keys.newest, head, identity))


def cipher_of(keys: Keys, identity: Identity, start: bytes, sealed_bytes: int) -> FileCipher:
    """Return the cipher for a file.

    Args:
        keys: that it was sealed with.
        identity: of the file.
        start: its head and its first segment.
        sealed_bytes: its length.

    Raises:
        NewerVersionError: a newer program wrote it, or with keys that came later.
        CorruptError: it is not sealed.
    """
    if len(start) < HEAD_BYTES or not start.startswith(MAGIC):
        raise CorruptError("it is not sealed, or damaged")
    _, version, generation, salt = _HEAD.unpack_from(start)
    if version != VERSION or not 0 < generation <= len(keys.generations):
        if _is_of_this_version(keys, identity, start, sealed_bytes, salt):
            raise CorruptError("its head is damaged")
        raise NewerVersionError(f"its version {version}, keys {generation}, is not known")
    head = start[:HEAD_BYTES]
    return FileCipher(head, _cipher(keys.generations[generation - 1], head, identity))


def _is_of_this_version(
    keys: Keys, identity: Identity, start: bytes, sealed_bytes: int, salt: bytes
) -> bool:
    """Return whether the first segment opens with another version or generation in the head.

    Then these bytes are damaged, and no newer program wrote them.
    """
    first = start[HEAD_BYTES : HEAD_BYTES + SEALED_SEGMENT_BYTES]
    is_last = sealed_bytes <= HEAD_BYTES + SEALED_SEGMENT_BYTES
    for generation in range(1, len(keys.generations) + 1):
        head = _HEAD.pack(MAGIC, VERSION, generation, salt)
        cipher = FileCipher(head, _cipher(keys.generations[generation - 1], head, identity))
        with suppress(CorruptError):
            cipher.open(first, 0, is_last=is_last)
            return True
    return False


def seal_file(keys: Keys, identity: Identity, data: bytes | memoryview) -> bytes:
    """Return a whole sealed file."""
    cipher = new_cipher(keys, identity)
    count = max(1, -(-len(data) // SEGMENT_BYTES))
    segments = (
        cipher.seal(
            data[number * SEGMENT_BYTES : (number + 1) * SEGMENT_BYTES],
            number,
            is_last=number == count - 1,
        )
        for number in range(count)
    )
    return b"".join((cipher.head, *segments))


def open_file(keys: Keys, identity: Identity, sealed: bytes) -> bytes:
    """Return the content of a whole sealed file.

    Raises:
        CorruptError: it is damaged, or another file.
    """
    cipher = cipher_of(keys, identity, sealed, len(sealed))
    count = segments_in(len(sealed))
    body = memoryview(sealed)[HEAD_BYTES:]
    return b"".join(
        cipher.open(
            body[number * SEALED_SEGMENT_BYTES : (number + 1) * SEALED_SEGMENT_BYTES],
            number,
            is_last=number == count - 1,
        )
        for number in range(count)
    )


def segments_in(sealed_bytes: int) -> int:
    """Return how many segments a sealed file of that length has.

    Raises:
        CorruptError: no sealed file is that long.
    """
    count, rest = divmod(sealed_bytes - HEAD_BYTES, SEALED_SEGMENT_BYTES)
    # The last one holds something, unless the file is empty.
    if count < 0 or 0 < rest <= TAG_BYTES - (count == 0) or (count, rest) == (0, 0):
        raise CorruptError("it is cut off")
    return count + (rest > 0)


def content_bytes(sealed_bytes: int) -> int:
    """Return the length of the content of a sealed file of that length.

    Raises:
        CorruptError: no sealed file is that long.
    """
    return sealed_bytes - HEAD_BYTES - TAG_BYTES * segments_in(sealed_bytes)


def sealed_bytes(content: int) -> int:
    """Return the length of a sealed file with content of that length."""
    return HEAD_BYTES + content + TAG_BYTES * max(1, -(-content // SEGMENT_BYTES))


def _cipher(generation: Generation, head: bytes, identity: Identity) -> AESGCM:
    name = identity.name.encode("utf-8", "surrogateescape")
    bound = head + identity.repository_id + name
    return AESGCM(blake3(bound, key=generation.files.reveal()).digest())
