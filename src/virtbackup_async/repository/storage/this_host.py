"""How a process is named in a lease, for others that share the repository."""

import os
from pathlib import Path


def host_id() -> str:
    """Return an identifier that no other host has. Blocks."""
    try:
        return Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        return os.uname().nodename


def host_name() -> str:
    """Return the name by which people know this host."""
    return os.uname().nodename


def process_id() -> int:
    """Return the number of this process."""
    return os.getpid()
