"""The real virt-backup 0.5.6 from PyPI, in an environment of its own."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.guest import cache_root

VERSION = "0.5.6"


@pytest.fixture(scope="session")
def virt_backup():
    """The command of the real program; its environment is kept in the lab's cache."""
    place = cache_root() / f"virt-backup-{VERSION}-py{sys.version_info[0]}.{sys.version_info[1]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{place}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
            install = [place / "bin/pip", "install", "-q", "--disable-pip-version-check"]
            subprocess.run([*install, f"virt-backup=={VERSION}", "zstandard"], check=True)
            (place / "complete").touch()
    return place / "bin/virt-backup"


def run_virt_backup(program, config, *words):
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [program, "-c", config, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
