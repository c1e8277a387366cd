"""The hash of a definition, by which the definition after it names it.

It covers all that never changes: every key but the checksum, and those that are changed later,
``pinned``, ``verified`` and ``accepted``. docs/reference/formats.md ("Sequence") is the reference.
"""

from typing import Any, Final

import msgspec
from blake3 import blake3

from virtbackup_async.catalog import checksum

PATTERN: Final = rf"^{checksum.PREFIX}[0-9a-f]{{64}}\Z"
_CHANGING: Final = (checksum.KEY, "pinned", "verified", "accepted")
# Made once: a scan takes thousands of hashes.
_ENCODER: Final = msgspec.json.Encoder(order="sorted")


def hash_of(raw: dict[str, Any]) -> str:
    """Return the hash of a definition, given as the keys of its file.

    Raises:
        OverflowError: it has a number that this program never writes.
    """
    lasting = raw.copy()
    for key in _CHANGING:
        lasting.pop(key, None)
    return checksum.PREFIX + blake3(_ENCODER.encode(lasting)).hexdigest()
