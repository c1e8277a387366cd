"""The threads that the readers of compressed packages decompress in, each package in a few."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

_THREADS: Final = min(8, os.cpu_count() or 1)
MOST_AHEAD: Final = _THREADS + 1
"""How much is decompressed, or waits to be read, at once: members of archives, runs of frames."""


def open_threads() -> ThreadPoolExecutor:
    """A few threads; leaving the block waits for them."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="decompress")
