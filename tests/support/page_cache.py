"""What of a file lies in the page cache, seen with the tools of the system."""

import os
import subprocess
from pathlib import Path


def cached_bytes(path) -> int:
    """How many bytes of a file are cached, in whole pages."""
    command = ["fincore", "--bytes", "--noheadings", "-o", "RES", str(path)]
    return int(subprocess.check_output(command))


def drop_from_cache(path: Path) -> Path:
    """Take a file out of the page cache, as far as it can be."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path
