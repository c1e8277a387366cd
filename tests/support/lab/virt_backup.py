"""The real virt-backup 0.5.6 from PyPI, in an environment of its own, kept in the lab's cache."""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

from lab.guest import cache_root

VERSION = "0.5.6"
ENVIRONMENT = {"PYTHONWARNINGS": "ignore"}


def install() -> Path:
    """Return the command, installed if this machine has not installed it before."""
    place = cache_root() / f"virt-backup-{VERSION}-py{sys.version_info[0]}.{sys.version_info[1]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{place}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
            pip = [str(place / "bin/pip"), "install", "-q", "--disable-pip-version-check"]
            subprocess.run([*pip, f"virt-backup=={VERSION}", "zstandard"], check=True)
            (place / "complete").touch()
    return place / "bin/virt-backup"
