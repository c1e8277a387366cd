"""The demo: one real guest, backed up while it writes, restored, proved and booted again.

``scripts/demo`` runs it. The commands are the real ones, each in a process of its own; what this
module adds is the guest, and the proof. For the proof it stops the backup's process for a moment
while the guest runs on: the images under the overlays stand still then, and are copied aside.
"""

import argparse
import filecmp
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.description import domain_xml
from lab.disks import DiskSpec
from lab.domains import LabDomain, running
from lab.guest import build
from lab.libvirt_root import Embedded, as_ordinary_user, open_embedded
from lab.process import run

MIB = 1 << 20
GUEST = "demo"
DISKS = [DiskSpec("vda", size_bytes=512 * MIB), DiskSpec("vdb", "raw", 1024 * MIB, fs=None)]
ATTEMPTS = 5
CONFIG = """\
uri: "{uri}"
threads: 2
groups:
  demo:
    target: {target}
    packager: directory
    autostart: true
    quiesce: true
    hosts:
      - {guest}
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave the restored images")
    keep = parser.parse_args().keep
    work = Path(tempfile.mkdtemp(prefix="virtbackup-demo-"))
    try:
        # The embedded driver prints its version on stderr, into the live view.
        os.environ["VIRTBACKUP_STATE_DIRECTORY"] = str(work / "state")
        os.environ["XDG_STATE_HOME"] = str(work / "state")
        os.environ["LIBVIRT_LOG_OUTPUTS"] = f"4:file:{os.devnull}"
        with open_embedded() as root:
            demonstrate(root, work)
    finally:
        if not keep:
            shutil.rmtree(work)
    say(f"the restored images are in {work / 'restored'}" if keep else "all of it is cleaned up")


def demonstrate(root: Embedded, work: Path) -> None:
    say("building the guest (cached after the first time) and booting it under QEMU")
    (work / "target").mkdir()
    config = work / "config.yml"
    config.write_text(CONFIG.format(uri=root.uri, target=work / "target", guest=GUEST))
    with running(root, GUEST, DISKS, writer="vda") as guest:
        fill(guest)
        images = guest.images()
        frozen = back_up_and_freeze(config, images, work)
        after = lines_written(guest)
        assert guest.images() == images, "the guest is not back on its own images"
        assert not list(root.images.glob("*.vbk-*")), "an overlay is left"
        say(f"the guest ran on meanwhile, on its own images: it is at line {after} of its log")
    command(config, "list")
    command(config, "restore", GUEST, GUEST, work / "restored")
    prove(frozen, images, work / "restored")
    boot_restored(root, {dev: work / "restored" / image.name for dev, image in images.items()})


def fill(guest: LabDomain) -> None:
    """Give both disks some real data, so that a backup takes long enough to be watched."""
    say("the guest writes files to one disk, raw data to the other, and keeps appending to a log")
    guest.guest_exec("dd if=/dev/urandom of=/mnt/vda/data bs=1M count=96 2>/dev/null; sync")
    for number in range(8):
        guest.qemu_io("vdb", f"write -P {number + 1} {number * 128}M 64M")


def back_up_and_freeze(config: Path, images: dict[str, Path], work: Path) -> dict[str, Path]:
    """Back up, and return copies of the images as they stood still.

    The copies are good only if the process was stopped before it had copied everything, which is
    looked up; on a very fast disk it may take another backup.
    """
    target = work / "target" / GUEST
    for _ in range(ATTEMPTS):
        frozen: dict[str, Path] = {}
        print_command(config, "backup")
        process = subprocess.Popen(virtbackup(config, "backup"))
        wait_for(lambda: len(list(target.glob("*_vd?.*"))) == len(images), process)
        with stopped(process):
            if all(half_written(target, dev, image) for dev, image in images.items()):
                frozen = {
                    dev: Path(shutil.copyfile(image, work / f"{dev}.frozen"))
                    for dev, image in images.items()
                }
        if process.wait() != 0:
            sys.exit(f"the backup failed with exit code {process.returncode}")
        if frozen:
            say("(its process was stopped for a moment to copy the frozen images aside)")
            return frozen
        shutil.rmtree(target)
    sys.exit("this machine is too fast for the demo: every backup was done before it was stopped")


def half_written(target: Path, dev: str, image: Path) -> bool:
    (copy,) = target.glob(f"*_{dev}.*")
    return copy.stat().st_blocks < image.stat().st_blocks * 0.9


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def prove(frozen: dict[str, Path], images: dict[str, Path], restored: Path) -> None:
    for dev, copy in frozen.items():
        image = restored / images[dev].name
        if not filecmp.cmp(copy, image, shallow=False):
            sys.exit(f"{dev}: the restored image differs from the frozen one")
        say(f"{dev}: {image.name} is byte for byte the frozen image ({image.stat().st_size} B)")
    raw = restored / "vda.check"
    run("qemu-img", "convert", "-O", "raw", restored / images["vda"].name, raw)
    run("e2fsck", "-fn", raw)
    raw.unlink()
    say("vda: its file system is clean (e2fsck -fn)")


def boot_restored(root: Embedded, images: dict[str, Path]) -> None:
    say("booting the restored guest")
    copies = [(disk, images[disk.dev]) for disk in DISKS]
    console = root.path / "console" / "restored.log"
    description = root.path / "restored.xml"
    description.write_text(domain_xml("restored", copies, build(), console))
    root.virsh("define", description)
    domain = LabDomain(root, "restored", console, agent=True)
    try:
        domain.start()
        domain.wait_booted()
        log = domain.guest_exec("cat /mnt/vda/writer.log").splitlines()
        assert log == [f"line {n}" for n in range(1, len(log) + 1)], "the guest's log has a gap"
        say(f"it runs, and its log is whole: lines 1 to {len(log)}, without a gap")
    finally:
        domain.undefine()


def lines_written(guest: LabDomain) -> int:
    return int(guest.guest_exec("wc -l </mnt/vda/writer.log"))


def wait_for(is_so: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None and not is_so():
        time.sleep(0.0005)


def virtbackup(config: Path, *words: object) -> list[str]:
    return [*as_ordinary_user(), "virtbackup", "-c", str(config), *map(str, words)]


def print_command(config: Path, *words: object) -> None:
    words_shown = " ".join(["virtbackup", "-c", str(config), *map(str, words)])
    print(f"\n$ {words_shown}", flush=True)  # noqa: T201 -- a program's output


def command(config: Path, *words: object) -> None:
    print_command(config, *words)
    subprocess.run(virtbackup(config, *words), check=True)


def say(message: str) -> None:
    print(f"\n== {message}", flush=True)  # noqa: T201 -- a program's output


if __name__ == "__main__":
    main()
