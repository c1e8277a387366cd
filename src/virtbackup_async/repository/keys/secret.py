"""Bytes that nobody may see: a key, a passphrase.

Invariant: only ``reveal`` returns them. They are in no message, log, event or traceback, because
all of these use ``repr`` or ``str``; and nothing copies them into a file.
"""

import hmac
import secrets
from typing import Final, NoReturn

from blake3 import blake3

SHOWN: Final = "<secret>"
SECRET_BYTES: Final = 32


class Secret:
    """Some secret bytes."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Return the bytes, for a call that needs them."""
        return self._value

    def derive(self, purpose: str, length_bytes: int = SECRET_BYTES) -> bytes:
        """Return the key for one purpose; keys of different purposes tell nothing of each other."""
        return blake3(self._value, derive_key_context=purpose).digest(length_bytes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return SHOWN

    def __format__(self, _spec: str) -> str:
        return SHOWN

    def __reduce__(self) -> NoReturn:
        message = "a secret is not copied"
        raise TypeError(message)


def new_secret() -> Secret:
    """Return 32 random bytes."""
    return Secret(secrets.token_bytes(SECRET_BYTES))
