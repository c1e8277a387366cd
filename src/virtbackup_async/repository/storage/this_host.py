"""Who this process is to others that share a repository."""

import os
from pathlib import Path


def host_id() -> str:
    """Return what tells this host from others. Blocks."""
    try:
        return Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        return os.uname().nodename


def process_id() -> int:
    """Return the number of this process."""
    return os.getpid()
