"""The synthetic disks of many guests: what each holds on each night, as numbers of chunks.

A guest has the chunks of its operating system, which others have too, and chunks of its own. Each
night some places get another chunk; some nights, an update comes to all guests of one system. A
chunk is compressed to a sixty-fourth, so that many disks need little space: what grows with the
number of hosts, guests and nights is not the bytes.
"""

import random
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from virtbackup_async.repository import CHUNK_BYTES

IMAGE_BYTES = 64 << 20
SYSTEMS = 5
SYSTEM_PLACES = range(16)
OWN_PLACES = range(16, 48)
CHANGED_A_NIGHT = 6
UPDATED_A_NIGHT = 2
UPDATE_NIGHTS = 7
_RANDOM_BYTES = CHUNK_BYTES // 64
_OWN = 1 << 40

Disk = dict[int, int]
"""The numbers of an image's chunks, by their places."""


def disk(guest: int, night: int) -> Disk:
    """Return what a guest's image holds on a night; the first one is night 0."""
    system = guest % SYSTEMS
    held = {place: system * 1000 + place for place in SYSTEM_PLACES}
    held |= {place: _number(guest, 0, place) for place in OWN_PLACES[:CHANGED_A_NIGHT]}
    for passed in range(1, night + 1):
        numbers = random.Random(f"{guest} {passed}")  # noqa: S311
        for place in numbers.sample(OWN_PLACES, CHANGED_A_NIGHT):
            held[place] = _number(guest, passed, place)
        if passed % UPDATE_NIGHTS == 0:
            updated = random.Random(f"{system} {passed}")  # noqa: S311
            for place in updated.sample(SYSTEM_PLACES, UPDATED_A_NIGHT):
                held[place] = (passed * SYSTEMS + system) * 1000 + place
    return held


def write_image(path: Path, held: Disk) -> None:
    """Write a sparse image in the place of any other."""
    path.unlink(missing_ok=True)
    with path.open("wb") as image:
        _write_all(image, held)


def is_image(path: Path, held: Disk) -> bool:
    """Return whether a file is such an image, byte for byte."""
    zeros = bytes(CHUNK_BYTES)
    with path.open("rb") as image:
        for place in range(IMAGE_BYTES // CHUNK_BYTES):
            expected = content(held[place]) if place in held else zeros
            if image.read(CHUNK_BYTES) != expected:
                return False
        return image.read(1) == b""


@lru_cache(1024)
def content(number: int) -> bytes:
    """Return the chunk of a number."""
    start = random.Random(number).randbytes(_RANDOM_BYTES)  # noqa: S311
    return start.ljust(CHUNK_BYTES, b"\x01")


def _number(guest: int, night: int, place: int) -> int:
    return _OWN + (guest * 10_000 + night) * 1000 + place


def _write_all(image: BinaryIO, held: Disk) -> None:
    image.truncate(IMAGE_BYTES)
    for place, number in held.items():
        image.seek(place * CHUNK_BYTES)
        image.write(content(number))
