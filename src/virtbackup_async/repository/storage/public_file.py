"""The file with the public half of a recovery key, for which a host seals what it writes.

It is no secret. Whoever can change it can have a host seal its later backups for a key of theirs,
so it is refused if anybody but its owner may write it, if it is a link, or another user's.
"""

import base64
import binascii
import stat
from pathlib import Path
from typing import Final

from blake3 import blake3

from virtbackup_async.errors import ConfigError, StorageError
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.repository.keys.recovery import PUBLIC_BYTES
from virtbackup_async.repository.storage.key_file import line_in, read_own_file

KIND: Final = "virtbackup-public-1"
_CHECK_BYTES: Final = 3
_NOTE: Final = (
    "# The public half of a recovery key of virtbackup: what hosts seal for it, only the recovery\n"
    "# key opens. It is no secret, but nobody must change it.\n"
)
_HINT: Final = (
    "Run 'virtbackup key paper --public FILE', best on another machine, and bring the file here."
)


def read_public_file(path: Path) -> bytes:
    """Return the public half of a recovery key. Blocks.

    Raises:
        ConfigError: it is missing or damaged, or others may change it.
    """
    line = line_in(read_own_file(path, "public key", _HINT, stat.S_IWGRP | stat.S_IWOTH))
    kind, _, letters = (line or "").partition(":")
    if kind != KIND:
        raise ConfigError(f"not a public key: {path}", hint=_HINT)
    try:
        data = base64.b64decode(letters, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    public, check = data[:PUBLIC_BYTES], data[PUBLIC_BYTES:]
    if len(public) != PUBLIC_BYTES or check != _check(public):
        raise ConfigError(f"damaged public key: {path}", hint="Bring it back from a copy.")
    return public


def write_public_file(path: Path, public: bytes) -> None:
    """Write the public half of a recovery key into a new file, durably. Blocks.

    Raises:
        ConfigError: the file exists.
        StorageError: it cannot be made.
    """
    place = TargetPath(path.parent) / path.name
    letters = base64.b64encode(public + _check(public)).decode()
    try:
        place.create_whole(f"{_NOTE}{KIND}:{letters}\n".encode())
        place.parent.sync_names()
    except FileExistsError as error:
        raise ConfigError(
            f"the file exists already: {path}", hint="Name another one: it may be in use."
        ) from error
    except StorageError as error:
        raise error.as_kind(
            StorageError, hint="Make its directory, or name another path."
        ) from error


def _check(public: bytes) -> bytes:
    return blake3(KIND.encode() + b"\0" + public).digest(_CHECK_BYTES)
