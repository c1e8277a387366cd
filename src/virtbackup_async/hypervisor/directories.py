"""libvirt's own directories. Its API does not report them, so they follow from the URI.

Source: virQEMUDriverConfigNew in libvirt's src/qemu/qemu_conf.c.
"""

import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from msgspec import Struct


class Directories(Struct, frozen=True):
    """Directories of a libvirt on this host.

    Attributes:
        swtpm: the state of emulated TPMs, a directory for each domain, by UUID.
        running: a directory for each running domain, which its QEMU can write to.
        state: directories with a file for each domain: its UEFI variables, its pstore.
    """

    swtpm: Path
    running: Path
    state: frozenset[Path]


def libvirt_directories(uri: str) -> Directories | None:
    """Return the directories of a URI's QEMU driver; None for another driver.

    Args:
        uri: the connection's URI; a session's URI is taken for this process's user and environment.
    """
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] != "qemu":
        return None
    match parts.path:
        case "/system":
            base = Path("/var/lib/libvirt")
            return Directories(base / "swtpm", base / "qemu", _state(base / "qemu"))
        case "/session":
            base = _config_home() / "libvirt/qemu"
            return Directories(base / "swtpm", base / "lib", _state(base))
        case "/embed":
            for root in parse_qs(parts.query).get("root", ()):
                base = Path(root) / "lib"
                return Directories(base / "swtpm", base / "qemu", _state(base / "qemu"))
        case _:
            pass
    return None


def _state(base: Path) -> frozenset[Path]:
    return frozenset({base / "nvram", base / "varstore"})


def _config_home() -> Path:
    configured = os.environ.get("XDG_CONFIG_HOME")
    return Path(configured) if configured else Path.home() / ".config"
