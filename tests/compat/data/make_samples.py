"""Writes the samples that virt-backup 0.5.6 itself makes; README.md says how to run it.

Runs in virt-backup's own environment, not in ours: its classes pack the data and write the files,
only libvirt's domain and the snapshot are stand-ins.
"""

import contextlib
import hashlib
import json
import pathlib
import shutil

import arrow
from virt_backup.backups import DomBackup
from virt_backup.compat_layers.definition import convert as convert_definition
from virt_backup.compat_layers.pending_info import convert as convert_pending

HERE = pathlib.Path(__file__).parent
# The path stands in the samples, so it is the same wherever they are made.
IMAGE = pathlib.Path("/tmp/virt-backup-samples/vda.raw")


class Domain:
    """What DomBackup asks of a libvirt domain."""

    _conn = None

    def __init__(self, name, domain_id, image):
        self._name, self._id, self._image = name, domain_id, image

    def name(self):
        return self._name

    def ID(self):  # noqa: N802 -- libvirt's name
        return self._id

    def UUID(self):  # noqa: N802 -- libvirt's name
        return self._name.encode()

    def XMLDesc(self):  # noqa: N802 -- libvirt's name
        return (
            f"<domain type='kvm' id='{self._id}'><name>{self._name}</name><devices>"
            "<disk type='file' device='disk'><driver name='qemu' type='raw'/>"
            f"<source file='{self._image}'/><target dev='vda' bus='virtio'/></disk>"
            "</devices></domain>"
        )


class Snapshot:
    """The snapshot of a domain's disks that never happens."""

    def __init__(self, disks):
        self.disks = disks

    def start(self):
        disks = {
            dev: {"src": disk["src"], "type": disk["type"], "snapshot": disk["src"] + ".snap"}
            for dev, disk in self.disks.items()
        }
        return {"date": arrow.now(), "disks": disks}

    def clean_for_disk(self, disk):
        pass

    def clean(self):
        pass


class Backup(DomBackup):
    """A backup without libvirt; ``dies`` leaves what a crash leaves."""

    dies = False

    def _get_ext_snapshot_helper(self):
        return Snapshot(self.disks)

    def _backup_disk(self, *args):
        super()._backup_disk(*args)
        if self.dies:
            raise KeyboardInterrupt

    def clean_aborted(self):
        if not self.dies:
            super().clean_aborted()


def make_image():
    """Write 96 KiB: data, a hole, data."""
    IMAGE.parent.mkdir(exist_ok=True)
    with IMAGE.open("wb") as file:
        for block in (0, 1, 10, 23):
            file.seek(block * 4096)
            file.write(hashlib.sha512(bytes([block])).digest() * 64)


def make_0_5_6():
    target = HERE / "0.5.6" / "target"
    target.mkdir(parents=True)
    make_image()
    shutil.copy(IMAGE, HERE / "0.5.6")
    kinds = {
        "directory": ("directory", {}),
        "tar": ("tar", {}),
        "tar gz": ("tar", {"compression": "gz", "compression_lvl": 6}),
        "tar xz": ("tar", {"compression": "xz", "compression_lvl": 3}),
        "zstd": ("zstd", {"compression_lvl": 3}),
        "broken": ("directory", {}),
    }
    for number, (name, (packager, opts)) in enumerate(kinds.items(), start=1):
        backup = Backup(
            dom=Domain(name, number, IMAGE),
            backup_dir=str(target / name),
            packager=packager,
            packager_opts=opts,
            callbacks_registrer=object(),
        )
        backup.dies = name == "broken"
        with contextlib.suppress(KeyboardInterrupt):
            backup.start()


def make_converted():
    """Write beside each older sample what virt-backup makes of it."""
    for path in sorted(HERE.glob("*/*.json")):
        raw = json.loads(path.read_text())
        (convert_pending if "pending" in path.name else convert_definition)(raw)
        path.with_suffix(".as_0.5.6").write_text(json.dumps(raw, indent=4) + "\n")


if __name__ == "__main__":
    make_converted()
    make_0_5_6()
