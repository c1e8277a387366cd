"""Secrets as text: in a key file, and on paper.

::

    virtbackup-key-1:4QFG-...-7KQA
    kind           :  32 bytes and a checksum of 3, as 56 letters and digits in groups of four

The letters are those of base32, without 0, 1, 8 and 9, which look like others. Someone who types
them in may write them small, and leave out or add blanks and dashes.
"""

import base64
import binascii
import re
from typing import Final

from blake3 import blake3

from virtbackup_async.errors import ConfigError
from virtbackup_async.repository.keys.secret import SECRET_BYTES, Secret

KEY_FILE: Final = "virtbackup-key-1"
RECOVERY: Final = "virtbackup-recovery-1"
_CHECK_BYTES: Final = 3
_GROUP: Final = 4
_IGNORED: Final = re.compile(r"[\s-]")


def encode(kind: str, secret: Secret) -> str:
    """Return a secret as text, without the kind."""
    data = secret.reveal()
    letters = base64.b32encode(data + _check(kind, data)).decode()
    return "-".join(letters[at : at + _GROUP] for at in range(0, len(letters), _GROUP))


def write(kind: str, secret: Secret) -> str:
    """Return a secret as text, with its kind."""
    return f"{kind}:{encode(kind, secret)}"


def read(kind: str, text: str) -> Secret:
    """Return the secret in a text, with or without its kind.

    Raises:
        ConfigError: it is no such text, or something is wrong in it.
    """
    letters = text.strip()
    prefix, colon, rest = letters.rpartition(":")
    if colon:
        if prefix.strip().lower() != kind:
            raise ConfigError("not a key of this kind", hint=f"It begins with {kind!r}.")
        letters = rest
    try:
        data = base64.b32decode(_IGNORED.sub("", letters).upper())
    except (binascii.Error, ValueError):
        data = b""
    value, check = data[:SECRET_BYTES], data[SECRET_BYTES:]
    if len(value) != SECRET_BYTES or check != _check(kind, value):
        raise ConfigError("the key is mistyped", hint="Compare it group by group.") from None
    return Secret(value)


def _check(kind: str, data: bytes) -> bytes:
    return blake3(kind.encode() + b"\0" + data).digest(_CHECK_BYTES)
