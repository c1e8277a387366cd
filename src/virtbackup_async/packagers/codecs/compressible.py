"""Whether slow compression would gain nothing: for data that is already compressed or encrypted.

gzip and xz ask for each segment. If a quick compressor saves next to nothing, slow ones do not save
much either; docs/explanation/performance.md has the figures.
"""

import threading
from typing import Final

import zstandard

_PLACES: Final = 8
_SAMPLE_BYTES: Final = 16 * 1024
_QUICK: Final = 1
# Dense data compresses no better. Media and archives reach 0.99 and more, programs 0.6.
_DENSE: Final = 0.98


class _Probe(threading.local):
    """A compressor for each thread, because two threads cannot use one at the same time."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_QUICK)


_probe = _Probe()


def is_dense(data: memoryview) -> bool:
    """Return whether slow compression would not make ``data`` smaller. Blocks for moments."""
    apart = max(_SAMPLE_BYTES, len(data) // _PLACES)
    samples = (data[start : start + _SAMPLE_BYTES] for start in range(0, len(data), apart))
    # Mostly the first sample is not dense. At the end, all data is tried: parts of it can repeat.
    return all(map(_packs_badly, samples)) and _packs_badly(data)


def _packs_badly(data: memoryview) -> bool:
    return len(_probe.compressor.compress(data)) >= _DENSE * len(data)
