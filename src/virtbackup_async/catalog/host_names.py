"""Names of what this host keeps in its state directory about targets and their domains.

Each name shows what it is about, for people, and has 16 hexadecimal digits that make it unique.
docs/reference/formats.md has the names.
"""

import re
from hashlib import blake2s
from typing import Final

from virtbackup_async.model.storage_location import StorageLocation

_TOKEN_BYTES: Final = 8
_SHOWN_MAX: Final = 60
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9.-]+")


def name_of_target(target: StorageLocation) -> str:
    """Return the name of the directory for a target: ``_backup.<16 hexadecimal digits>``."""
    return name_of(str(target), target.kind, target.path, target.endpoint or "")


def name_of(shown: str, *identity: str) -> str:
    """Return a name that shows a text, and that only this identity has."""
    token = blake2s(
        "\0".join(identity).encode(errors="surrogateescape"), digest_size=_TOKEN_BYTES
    ).hexdigest()
    return f"{_UNSAFE.sub('_', shown)[:_SHOWN_MAX]}.{token}"
