"""The machine and the versions that figures mean nothing without."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import virtbackup_async
from lab import virt_backup

# What prints each program's version; its first number with a dot is taken.
_VERSIONS: Mapping[str, tuple[str, ...]] = {
    "QEMU": ("qemu-system-x86_64", "--version"),
    "libvirt": ("libvirtd", "--version"),
    "cp (coreutils)": ("cp", "--version"),
    "zstd": ("zstd", "--version"),
    "pigz": ("pigz", "--version"),
    "xz": ("xz", "--version"),
    "virtnbdbackup": ("virtnbdbackup", "--version"),
    "restic": ("restic", "version"),
    "borg": ("borg", "--version"),
}


@dataclass(frozen=True)
class Host:
    """Where it was measured.

    Attributes:
        system: distribution and kernel.
        cpu: its model, and how many.
        memory_mib: of the machine.
        versions: by program; only of those that are installed.
        absent: the peers that are not.
        load: how many processes wanted a CPU in the minute before.
    """

    system: str
    cpu: str
    memory_mib: int
    versions: dict[str, str]
    absent: list[str]
    load: float


def describe() -> Host:
    """Look at this machine."""
    found = {name: _version(argv) for name, argv in _VERSIONS.items()}
    ours = {
        "virtbackup-async": virtbackup_async.__version__,
        "virt-backup": virt_backup.VERSION,
        "Python": platform.python_version(),
    }
    return Host(
        system=f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release()}",
        cpu=f"{os.cpu_count()} x {_cpu_model()}",
        memory_mib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        versions=ours | {name: version for name, version in found.items() if version},
        absent=[name for name, version in found.items() if not version],
        load=os.getloadavg()[0],
    )


def _version(argv: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    number = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return number.group() if number else "?"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
