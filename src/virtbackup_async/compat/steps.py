"""Runs the steps that data of an old version still needs.

``definition`` and ``pending`` keep their own list of steps; each carries raw data from the version
before to its own, and is skipped where the data is of that version or later. Steps return new
dicts: what was handed in stays as it was.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from msgspec import Struct

from virtbackup_async.errors import DefinitionError

Raw = dict[str, Any]
Version = tuple[int, int, int]

NEWEST_MAJOR = 1
_VERSION = re.compile(r"(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?(?![0-9])")


class Step(Struct, frozen=True):
    """A change of the format: ``convert`` is applied to data older than ``to``."""

    to: Version
    convert: Callable[[Raw], Raw]


def parse_version(text: object) -> Version:
    """Return the three numbers of a version; what follows them (``.post3``) does not count.

    Raises:
        DefinitionError: it is not text, or does not start with a number.
    """
    version = _numbers(text) if isinstance(text, str) else None
    if version is None:
        raise DefinitionError(f"version is {text!r:.40}, expected three numbers such as '0.5.6'")
    return version


@lru_cache(maxsize=32)
def _numbers(text: str) -> Version | None:
    # Cached: a target holds thousands of files of the same few versions.
    match = _VERSION.match(text)
    if match is None:
        return None
    major, minor, patch = (int(part or 0) for part in match.groups())
    return major, minor, patch


def upgrade(raw: Raw, steps: Sequence[Step]) -> Raw:
    """Return ``raw`` in the newest version's shape, by the steps that it needs.

    Raises:
        DefinitionError: the version is missing, damaged or newer than this program.
    """
    if "version" not in raw:
        raise DefinitionError("version is missing")
    version = parse_version(raw["version"])
    if version[0] > NEWEST_MAJOR:
        raise DefinitionError(
            f"written by a newer version ({raw['version']})",
            hint="Use the program that wrote it, or a later one.",
        )
    for step in steps:
        if version < step.to:
            raw = {**step.convert(raw), "version": ".".join(map(str, step.to))}
    return raw
