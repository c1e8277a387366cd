"""Running the engine in a test: configuration on disk, events kept, frozen images copied aside.

The proof of a backup is the image itself, at the moment it stood still: when an event says that a
disk's copy starts, ``Recorder`` copies the frozen image aside, right there, before the engine goes
on. What is restored must equal that copy byte for byte.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import yaml

from lab.domains import LabDomain
from lab.process import run
from virtbackup_async.config.loading import load_config
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.inventory.chosen_backup import find_backup
from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.events import BackupDone, BackupFailed, Phase, PhaseChanged, RestoreDone
from virtbackup_async.hypervisor import open_hypervisor


@dataclass
class Recorder:
    """Takes the engine's events; copies each image aside when it is frozen."""

    frozen_directory: Path
    images: dict[str, dict[str, Path]] = field(default_factory=dict)
    events: list[object] = field(default_factory=list)
    frozen: dict[str, Path] = field(default_factory=dict)

    def watch(self, domain: LabDomain) -> None:
        """Copy the images of this domain aside when they stand still."""
        self.images[domain.name] = domain.images()

    def __call__(self, event):
        self.events.append(event)
        starts = isinstance(event, PhaseChanged) and event.phase is Phase.COPYING
        if starts and event.disk and event.disk not in self.frozen:
            image = self.images.get(event.domain, {}).get(event.disk)
            if image is not None:
                self.frozen_directory.mkdir(exist_ok=True)
                copy = self.frozen_directory / f"{event.disk}.frozen"
                self.frozen[event.disk] = Path(shutil.copyfile(image, copy))

    def of(self, kind):
        """All events of one class."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def done(self) -> BackupDone:
        """The one backup that was made; what failed, if it was not."""
        assert not self.of(BackupFailed), self.of(BackupFailed)
        (done,) = self.of(BackupDone)
        return done

    @property
    def failed(self) -> BackupFailed:
        """The one backup that failed."""
        assert not self.of(BackupDone)
        (failed,) = self.of(BackupFailed)
        return failed


class On(Recorder):
    """A recorder that does something, once, when a phase begins; arm it before the backup."""

    def arm(self, phase, action, disk=None):
        self.armed = (phase, disk, action)
        return self

    def __call__(self, event):
        super().__call__(event)
        phase, disk, action = self.armed
        if isinstance(event, PhaseChanged) and event.phase is phase and disk in (None, event.disk):
            self.armed = (None, None, None)
            action()


def configure(directory: Path, uri: str, hosts: list, **group: object) -> Config:
    """Write a configuration with one group, ``all``, and read it as the program does."""
    target = directory / "target"
    target.mkdir(exist_ok=True)
    threads = group.pop("threads", 2)
    content = {
        "uri": uri,
        "threads": threads,
        "groups": {"all": {"target": str(target), "autostart": True, "hosts": hosts, **group}},
    }
    path = directory / "config.yml"
    path.write_text(yaml.safe_dump(content))
    return load_config(path)


async def back_up(config: Config, recorder: Recorder) -> Recorder:
    """One ``backup`` command."""
    with anyio.fail_after(100):
        async with open_hypervisor(config.uri) as hypervisor:
            await run_backup(Runtime(config, recorder, hypervisor), BackupRequest())
    return recorder


async def restore(
    config: Config, domain: str, target: Path, *, date: str | None = None
) -> RestoreDone:
    """One ``restore`` command."""
    found = await find_backup(config, "all", domain, date)
    request = RestoreRequest(found.definition, found.path.parent, target)
    return await restore_backup(Runtime(config, lambda _event: None), request)


def guest_visible(domain: LabDomain, directory: Path) -> dict[str, Path]:
    """Raw copies of what a guest sees on its qcow2 and raw disks, by dev; it must stand still."""
    copies = {}
    directory.mkdir()
    for dev, image in domain.images().items():
        if image.suffix in (".qcow2", ".raw"):
            copies[dev] = directory / f"{dev}.raw"
            image_format = image.suffix[1:]
            run("qemu-img", "convert", "-U", "-f", image_format, "-O", "raw", image, copies[dev])
    return copies


def leftovers(directory: Path) -> list[Path]:
    """Overlays and pending or partial files anywhere below a directory."""
    return [
        path
        for path in directory.rglob("*")
        if ".vbk-" in path.name or path.name.endswith((".pending", ".part"))
    ]


def assert_at_home(domain: LabDomain, images: dict[str, Path]) -> None:
    """The domain is on its own images, now and at its next start, and no overlay is left."""
    assert domain.images() == images
    assert domain.images(inactive=True) == images
    assert leftovers(domain.root.images) == []
