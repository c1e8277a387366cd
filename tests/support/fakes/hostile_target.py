"""A target that somebody else can write to, files of the host beside it, and `clean` over both.

What an undo must never touch are the *sentinels*: whatever a target's files say, they stay as they
are, byte for byte.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from fakes.hypervisor import FakeDomain, FakeHypervisor
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.events import Event, PendingLeft, PendingUndone

KIB = 1024
DATE = 1772331300
UUID = FakeDomain({}).uuid
NAME = "20260301-021500_3_evil"


def qemu(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def make_image(path: Path, byte: int) -> Path:
    path.write_bytes(bytes([byte]) * 64 * KIB)
    return path


def make_overlay(overlay: Path, image: Path, image_format: str = "raw", byte: int = 2) -> Path:
    """Make a qcow2 overlay over an image, with a write of its own."""
    qemu("qemu-img", "create", "-f", "qcow2", "-F", image_format, "-b", image, overlay)
    qemu("qemu-io", "-f", "qcow2", "-c", f"write -P {byte} 0 4k", overlay)
    return overlay


class HostileTarget:
    """``root/target`` is the attacker's; ``root/images`` and ``root/etc`` are the host's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.target, self.images, self.etc = (root / name for name in ("target", "images", "etc"))
        self.directory = self.target / "evil"
        for directory in (self.target, self.images, self.etc, root / "locks", self.directory):
            directory.mkdir()
        self.image = make_image(self.images / "evil.raw", 1)
        self.domain = FakeDomain({"vda": self.image}, active=False)
        self.hypervisor = FakeHypervisor(self.domain)
        self.events: list[Event] = []
        config = {"target": str(self.target), "hosts": ["r:.*"], "packager": "directory"}
        (root / "config.yml").write_text(yaml.safe_dump({"groups": {"all": config}}))

    def plant(self, disks: Mapping[str, Mapping[str, str | None]] = {}, **changed: object) -> Path:
        """Write a pending file; each disk gets the names inside the package by itself."""
        raw = {
            "name": NAME, "domain_id": 3, "domain_name": "evil", "domain_xml": "<domain/>",
            "version": "1.0.0", "date": DATE, "packager": {"type": "directory", "opts": {}},
            "uuid": UUID,
            "disks": {
                dev: {"type": "raw", "snapshot": None, "target": f"{NAME}_{dev}.raw", **disk}
                for dev, disk in disks.items()
            },
        }  # fmt: skip
        path = self.directory / f"{NAME}.json.pending"
        path.write_text(json.dumps(raw | changed))
        return path

    async def clean(self, *groups: str) -> list[Event]:
        self.events = []
        config = load_config(self.root / "config.yml")
        runtime = Runtime(
            config, self.events.append, self.hypervisor, lock_directory=self.root / "locks"
        )
        await run_clean(runtime, CleanRequest(groups, complete=False))
        return self.events

    def events_of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def left(self) -> list[PendingLeft]:
        return [event for event in self.events if isinstance(event, PendingLeft)]

    @property
    def undone(self) -> list[PendingUndone]:
        return [event for event in self.events if isinstance(event, PendingUndone)]


def snapshot_of(*roots: Path) -> dict[Path, object]:
    """Return what all files below are: content, links, modes; to be compared later."""
    found: dict[Path, object] = {}
    for root in roots:
        for path in (root, *sorted(root.rglob("*"))):
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            link = path.readlink() if path.is_symlink() else None
            found[path] = (status.st_mode, status.st_ino, content, link)
    return found
