"""Small files of a repository: a line of JSON, and a line with its checksum.

Used for the repository file, the notes and the leases. Pure: bytes in, values out. Invariant: a
file that is cut off or changed is an error, never a value.
"""

from typing import Any, Final

import msgspec
from blake3 import blake3

from virtbackup_async.errors import CorruptError

MAX_BYTES: Final = 64 * 1024 * 1024


def dumps(value: object) -> bytes:
    """Return the content of the file."""
    line = msgspec.json.encode(value)
    return line + b"\n" + _checksum(line) + b"\n"


def loads(data: bytes, name: object) -> dict[str, Any]:
    """Return the value in a file; ``name`` is the file's, for messages.

    Raises:
        CorruptError: the file is damaged, or has another format.
    """
    lines = data.split(b"\n")
    if len(lines) != 3 or lines[2] or _checksum(lines[0]) != lines[1]:  # noqa: PLR2004 -- two lines
        raise CorruptError(f"damaged: {name}")
    try:
        return msgspec.json.decode(lines[0], type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CorruptError(f"cannot be understood: {name}: {error}") from error


def _checksum(line: bytes) -> bytes:
    return blake3(line).hexdigest().encode()
