"""Real file systems of their own, on loop devices."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1 << 20


@contextmanager
def mounted(kind: str, directory: Path, mib: int) -> Iterator[Path]:
    """Make a file system below ``directory``; skipped only where it cannot be made or mounted."""
    if shutil.which(f"mkfs.{kind}", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip(f"no mkfs.{kind}: run scripts/lib/system-packages.sh")
    device, place = directory / "device", directory / "mounted"
    place.mkdir()
    with device.open("wb") as file:
        file.truncate(mib * MIB)
    subprocess.run([f"/usr/sbin/mkfs.{kind}", "-q", device], check=True, stdout=subprocess.DEVNULL)
    mount = ["mount", "-o", "loop", str(device), str(place)]
    mounting = subprocess.run(mount, check=False, capture_output=True, text=True)
    if mounting.returncode != 0:
        pytest.skip(f"loop devices cannot be mounted here: {mounting.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
