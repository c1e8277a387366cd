"""The checksum of a definition: it reveals a flipped bit.

It is in the file itself, under the key ``checksum``, and covers all other keys in one canonical
form. So neither indentation nor the order of keys matters, and a program that changes a key can
compute it again. docs/reference/formats.md ("Checksum") has the form byte by byte. Invariant: a
definition that has one, or by its version should have one, is refused unless it is right; older
ones, and those of virt-backup, have none and are read as they are.
"""

from typing import Any, Final

import msgspec
from blake3 import blake3

from virtbackup_async.compat.steps import Version, parse_version
from virtbackup_async.errors import DefinitionError
from virtbackup_async.model.target_file import AnyFile

KEY: Final = "checksum"
PREFIX: Final = "blake3:"
SINCE: Final[Version] = (1, 1, 0)
"""From this version of a definition on, one without a checksum is damaged."""

TRUST_OPTION: Final = "--trust-definition"
_HINT: Final = (
    f"Restore or export it into files of your own with {TRUST_OPTION}, and look at its XML."
)
# Made once: a scan takes thousands of checksums.
_ENCODER: Final = msgspec.json.Encoder(order="sorted")


class ChecksumError(DefinitionError):
    """A definition was changed since it was written; whoever trusts it may restore it."""


def checksum_of(raw: dict[str, Any]) -> str:
    """Return the checksum of a definition, the key itself left out.

    Raises:
        OverflowError: it has a number that this program never writes.
    """
    rest = raw.copy()
    rest.pop(KEY, None)
    return PREFIX + blake3(_ENCODER.encode(rest)).hexdigest()


def is_sealed(raw: dict[str, Any]) -> bool:
    """Return whether a definition has a checksum, or lacks one that it should have."""
    return KEY in raw or parse_version(raw.get("version")) >= SINCE


def check(raw: dict[str, Any], path: AnyFile) -> None:
    """Raise ChecksumError if the checksum shows that a definition was changed."""
    if not is_sealed(raw):
        return
    if KEY not in raw:
        raise ChecksumError("damaged: it has lost its checksum", path=path, hint=_HINT)
    try:
        is_right = raw[KEY] == checksum_of(raw)
    except (OverflowError, RecursionError, UnicodeError):
        is_right = False
    if not is_right:
        raise ChecksumError("damaged: its checksum is another", path=path, hint=_HINT)
