"""Where a libvirt keeps the state of emulated TPMs: it tells nobody, so the URI has to say it.

Called by ``domain``. Source: virQEMUDriverConfigNew in libvirt's src/qemu/qemu_conf.c.
"""

import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_SYSTEM = Path("/var/lib/libvirt/swtpm")


def swtpm_directory(uri: str) -> Path | None:
    """Return the directory that has one for each domain, by UUID; None for a driver without TPMs.

    Args:
        uri: the connection's; that of a session counts as one of this process's user and
            environment.
    """
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] != "qemu":
        return None
    match parts.path:
        case "/system":
            return _SYSTEM
        case "/session":
            return _config_home() / "libvirt/qemu/swtpm"
        case "/embed":
            root = parse_qs(parts.query).get("root")
            return Path(root[0]) / "lib/swtpm" if root else None
        case _:
            return None


def _config_home() -> Path:
    configured = os.environ.get("XDG_CONFIG_HOME")
    return Path(configured) if configured else Path.home() / ".config"
