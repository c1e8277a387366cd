"""A domain for tests of incremental backups: each one is compared with what was on the disks."""

import filecmp
import json
import shutil

from lab.disks import DiskSpec
from lab.process import run
from recording import Recorder, back_up, configure, leftovers, restore
from virtbackup_async.events import DiskDone

MIB = 1 << 20
DISKS = (DiskSpec("vda", fs=None), DiskSpec("vdb", fs=None), DiskSpec("vdc", "raw", fs=None))


class IncrementalSite:
    """A domain that never runs: its disks are written to as its guest would."""

    def __init__(self, daemon, make_domain, tmp_path, disks=DISKS):
        self.daemon = daemon
        self.domain = make_domain(*disks, agent=False, boot=False)
        self.name = self.domain.name
        self.path = tmp_path
        self.config = self.configured()
        self.domain.start_paused()
        self.backups = {}
        self.saved = {}

    def configured(self, **options):
        options = {"packager": "repository", "audit_percent": 0, **options}
        return configure(self.path, self.daemon.uri, [self.name], **options)

    def write(self, dev, *commands):
        for command in commands:
            self.domain.qemu_io(dev, command)
        self.domain.qemu_io(dev, "flush")

    async def back_up(self):
        """Back up; return by dev how each disk was read, and remember what was on them."""
        recorder = await back_up(self.config, Recorder(self.path / "frozen"))
        name = recorder.done.backup
        reference = self.path / "references" / name
        reference.mkdir(parents=True)
        for dev, image in self.domain.images().items():
            kind = "raw" if image.suffix == ".raw" else "qcow2"
            run("qemu-img", "convert", "-U", "-f", kind, "-O", "raw", image, reference / dev)
        self.backups[name] = reference
        assert leftovers(self.path) == []
        return Read(recorder, {event.disk: event for event in recorder.of(DiskDone)})

    async def check(self, names=None):
        """Restore every backup, or some, and compare it with what was on the disks then."""
        for name in names or self.backups:
            reference = self.backups[name]
            place = self.path / "restored" / name
            restored = await restore(self.config, self.name, place, date=name)
            assert restored.verified
            for expected in reference.iterdir():
                (found,) = place.glob(f"*-{expected.name}*raw")
                assert filecmp.cmp(expected, found, shallow=False), f"{name} {expected.name}"
            for path in place.iterdir():
                path.unlink()

    def monitor(self, command, **arguments):
        request = json.dumps({"execute": command, "arguments": arguments})
        said = json.loads(self.daemon.virsh("qemu-monitor-command", self.name, request))
        return said["return"]

    def nodes(self):
        """What QEMU says of the nodes that have bitmaps, in the order of the disks."""
        nodes = self.monitor("query-named-block-nodes", flat=True)
        found = [node for node in nodes if node.get("dirty-bitmaps")]
        return sorted(found, key=lambda node: node["image"]["filename"])

    def node(self, dev):
        (found,) = [node for node in self.nodes() if f"-{dev}." in node["image"]["filename"]]
        return found["node-name"]

    def bitmaps(self):
        return {bitmap["name"] for node in self.nodes() for bitmap in node["dirty-bitmaps"]}

    def lose_bitmap(self, dev, name):
        self.monitor("block-dirty-bitmap-remove", node=self.node(dev), name=name)

    def clear_bitmap(self, dev, name):
        """Make it forget all changes."""
        self.monitor("block-dirty-bitmap-clear", node=self.node(dev), name=name)

    def stored_bitmaps(self, dev):
        image = self.domain.images(inactive=True)[dev]
        info = json.loads(run("qemu-img", "info", "--output=json", image))
        return {bitmap["name"] for bitmap in info["format-specific"]["data"].get("bitmaps", [])}

    def save(self, dev):
        """Copy an image aside, as it is now."""
        image = self.domain.images(inactive=True)[dev]
        self.saved[dev] = shutil.copyfile(image, self.path / f"{dev}.saved")

    def put_back(self, dev):
        """Put the copy in the place of the image, which stays the same file."""
        shutil.copyfile(self.saved[dev], self.domain.images(inactive=True)[dev])

    def remove(self, name):
        """Remove a backup, as retention does."""
        for path in (self.path / "target" / self.name).glob(f"{name}*"):
            path.unlink()
        # Another one of the same second may get its name.
        shutil.rmtree(self.backups.pop(name))

    def checkpoints(self):
        return self.daemon.virsh("checkpoint-list", self.name, "--name").split()


class Read:
    """How the disks were read."""

    def __init__(self, recorder, disks):
        self.recorder = recorder
        self.disks = disks

    def is_full(self, dev):
        return self.disks[dev].base is None

    def reason(self, dev):
        return self.disks[dev].reason
