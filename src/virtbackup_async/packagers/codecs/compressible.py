"""Whether slow compression would be in vain: for data that is compressed or encrypted already.

Asked by gzip and xz for each segment. Where a quick compressor finds next to nothing, slow ones do
not find much; docs/explanation/performance.md has the figures.
"""

import threading
from typing import Final

import zstandard

_PLACES: Final = 8
_SAMPLE_BYTES: Final = 16 * 1024
_QUICK: Final = 1
# What packs no better is dense. Media and archives come to 0.99 and more, programs to 0.6.
_DENSE: Final = 0.98


class _Probe(threading.local):
    """A compressor for each thread: they are not for two at a time."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_QUICK)


_probe = _Probe()


def is_dense(data: memoryview) -> bool:
    """Whether a compressor that takes its time would not make ``data`` smaller. Blocks shortly."""
    apart = max(_SAMPLE_BYTES, len(data) // _PLACES)
    samples = (data[start : start + _SAMPLE_BYTES] for start in range(0, len(data), apart))
    # Mostly the first sample tells that it is not. All of it, because some of it may come twice.
    return all(map(_packs_badly, samples)) and _packs_badly(data)


def _packs_badly(data: memoryview) -> bool:
    return len(_probe.compressor.compress(data)) >= _DENSE * len(data)
