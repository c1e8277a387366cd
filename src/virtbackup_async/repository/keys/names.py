"""Names of files in an encrypted target.

::

    clear    web / 20260301-021500_3_web_vda.qcow2.map
    sealed   6o2g...vtk0 / 1ld4...8h2g       each step: AES-256-SIV, bound to the path above it

The same name in the same directory is always sealed alike, so that a file is found by its name
without a list; in another directory it looks different. In a step, the name of its directory takes
one byte, and in a directory ``web.<UUID>`` so does ``_web``. A step is padded to a multiple of 16
bytes. Its letters are those of base32hex, small: no file system exchanges any of them for others.
"""

import base64
import binascii
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag

from virtbackup_async.errors import StorageError
from virtbackup_async.model.names import guest_of_directory
from virtbackup_async.repository.keys.keyring import Keys

MAX_STEP_BYTES: Final = 128
_BLOCK_BYTES: Final = 16
_GROUP: Final = 8
_PARENT: Final = "\x01"
_DOMAIN: Final = "\x02"
_KEPT_NAMES: Final = 1 << 14


class NameSeal:
    """Seals the steps of names, and opens them; keeps those that were used last."""

    def __init__(self, keys: Keys, repository_id: bytes) -> None:
        self._siv = keys.names
        self._bound = b"name" + repository_id
        self.seal = lru_cache(_KEPT_NAMES)(self._seal)
        self.open = lru_cache(_KEPT_NAMES)(self._open)

    def _seal(self, directory: str, step: str) -> str:
        """Return the sealed form of a step in a directory, whose name is clear.

        Raises:
            StorageError: it is too long, or has a character that no name has.
        """
        if any(mark in step for mark in (_PARENT, _DOMAIN, "\0")):
            raise StorageError(f"not a name for an encrypted target: {step!r}")
        short = step
        for mark, name in _marks(directory):
            if name in step:
                short = step.replace(name, mark)
                break
        data = short.encode("utf-8", "surrogateescape")
        if len(data) > MAX_STEP_BYTES:
            raise StorageError(
                f"the name is too long for an encrypted target: {step}",
                hint="Give the domain a shorter name.",
            )
        padded = data.ljust(-(-len(data) // _BLOCK_BYTES) * _BLOCK_BYTES, b"\0")
        sealed = self._siv.encrypt(
            padded, [self._bound, directory.encode("utf-8", "surrogateescape")]
        )
        return base64.b32hexencode(sealed).decode().rstrip("=").lower()

    def _open(self, directory: str, sealed: str) -> str | None:
        """Return the clear form of a step; None if these keys did not make it there."""
        try:
            padded = sealed.upper() + "=" * (-len(sealed) % _GROUP)
            data = self._siv.decrypt(
                base64.b32hexdecode(padded),
                [self._bound, directory.encode("utf-8", "surrogateescape")],
            )
        except (binascii.Error, InvalidTag, ValueError):
            return None
        step = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        for mark, name in _marks(directory):
            step = step.replace(mark, name)
        return step


def _marks(directory: str) -> list[tuple[str, str]]:
    """Return what takes one byte in the names of a directory's files, and the byte."""
    parent = directory.rpartition("/")[2]
    guest = guest_of_directory(parent)
    whole = [(_PARENT, parent)] if parent else []
    return [*whole, (_DOMAIN, f"_{guest.name}")] if guest.uuid is not None else whole
