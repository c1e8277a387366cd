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


def kernel_id() -> str:
    """Return which start of a kernel, and which network of it, this process sees. Blocks.

    Two processes with the same one see each other's abstract sockets.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot.replace('-', '')}-{Path('/proc/self/ns/net').stat().st_ino}"


def process_id() -> int:
    """Return the number of this process."""
    return os.getpid()
