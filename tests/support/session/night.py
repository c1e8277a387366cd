"""A night's run of a few real guests, as JSON lines: what the picture of the live view is made of.

Called by ``scripts/record-live-view``. The guests are of the lab; nothing of the host's libvirt is
touched. A first backup is made at full speed, so that the second one reads only changes; that one
is slowed down, and has a guest whose image is gone.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from lab.disks import DiskSpec
from lab.domains import LabDomain, define, running
from lab.libvirt_root import open_daemon

MIB = 1 << 20
SLOW = "6M"
GUESTS = {
    "db-1": [DiskSpec("vda", size_bytes=256 * MIB), DiskSpec("vdb", size_bytes=512 * MIB, fs=None)],
    "web-1": [DiskSpec("vda", size_bytes=256 * MIB), DiskSpec("vdb", "raw", 96 * MIB, fs=None)],
}
SHUT_OFF = {
    "mail-1": [DiskSpec("vda", size_bytes=128 * MIB)],
    "wiki-1": [DiskSpec("vda", size_bytes=64 * MIB)],
    "test-1": [DiskSpec("vda", size_bytes=64 * MIB)],
}
WRITTEN = {"db-1": (("vda", 48), ("vdb", 160)), "web-1": (("vda", 64), ("vdb", 96))}
CONFIG = """\
uri: "{uri}"
threads: 2
{limit}
groups:
  production:
    target: {target}
    packager: repository
    method: pull
    autostart: true
    quiesce: true
    hosts: [{hosts}]
"""


def record_night(run: Path) -> None:
    """Write the JSON lines of a run to ``run``."""
    work = Path(tempfile.mkdtemp(prefix="virtbackup-view-"))
    os.environ["VIRTBACKUP_STATE_DIRECTORY"] = os.environ["XDG_STATE_HOME"] = str(work / "state")
    try:
        with open_daemon() as root, ExitStack() as stack:
            for name, disks in GUESTS.items():
                guest = stack.enter_context(running(root, name, disks))
                _write(guest, WRITTEN[name])
            others = {name: define(root, name, disks) for name, disks in SHUT_OFF.items()}
            target = work / "backups"
            target.mkdir()
            _back_up(work, root.uri, target, limit="")
            for name in GUESTS:
                _write(LabDomain(root, name, Path(os.devnull), agent=True), WRITTEN[name])
            others["test-1"].image("vda").unlink()
            lines = _back_up(work, root.uri, target, limit=f"rate_limit: {SLOW}")
            # Where the guests of this picture were is nobody's business.
            said = lines.replace(str(target), "/mnt/backups").replace(str(root.images), "/srv/img")
            run.write_text(said)
            for one in others.values():
                one.undefine()
    finally:
        shutil.rmtree(work)


def _write(guest: LabDomain, written: tuple[tuple[str, int], ...]) -> None:
    for number, (dev, mib) in enumerate(written):
        for start in range(0, mib, 8):
            guest.qemu_io(dev, f"write -P {start + number + 1} {start}M 8M")
        guest.qemu_io(dev, "flush")


def _back_up(work: Path, uri: str, target: Path, *, limit: str) -> str:
    config = work / "config.yml"
    hosts = ", ".join((*GUESTS, *SHUT_OFF))
    config.write_text(CONFIG.format(uri=uri, target=target, hosts=hosts, limit=limit))
    config.chmod(0o600)
    program = Path(sys.executable).with_name("virtbackup")
    argv = [str(program), "-c", str(config), "backup", "--json"]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False).stdout
