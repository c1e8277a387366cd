"""A session on real guests, from `init` to `restore`, recorded as pictures: `python -m session`.

``scripts/record-session`` runs it. ``steps.py`` has the commands. They run in a shell on a terminal
of 80x24 and of 120x40, with guests of the lab and a file system of their own for the backups. What
is mounted is seen by this process and its children alone, and only they know the host by another
name.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lab.disks import DiskSpec
from lab.domains import LabDomain, define, running
from lab.libvirt_root import Daemon, open_daemon
from session.steps import PICTURES, SIZES, STEPS, Step, file_of
from session.terminal import Terminal, open_terminal

ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20
HOST = "kvm-1"
DEADLINE_S = 300
QUESTION = re.compile(r"\]: *\Z")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/record-session",
        description="Record a session on real guests, from init to restore, as pictures.",
    )
    parser.add_argument("-o", "--output", type=Path, default=ROOT / PICTURES)
    output = parser.parse_args().output.resolve()
    if os.geteuid() != 0:
        sys.exit("record-session: this needs root: it mounts a file system for the backups")
    if Path("/proc/self/ns/mnt").readlink() == Path(f"/proc/{os.getppid()}/ns/mnt").readlink():
        sys.exit("record-session: this would mount where others see it: run scripts/record-session")
    subprocess.run(["hostname", HOST], check=True)
    for size in SIZES:
        with session(size) as (terminal, guests):
            for step in STEPS:
                print(f"{size}: {step.command}", flush=True)  # noqa: T201 -- of a script
                if step.before:
                    guests["web-1"].guest_exec(step.before)
                record(terminal, step, output)


def record(terminal: Terminal, step: Step, output: Path) -> None:
    """Type a command, answer its questions, and take its pictures."""

    def take(picture: str) -> None:
        terminal.picture(step.command, output / file_of(picture, terminal.size).name)

    waiting = list(step.meanwhile)
    answered = ""
    with terminal.typed(step.command) as ended:
        until = time.monotonic() + DEADLINE_S
        while not ended():
            text = terminal.text()
            if waiting and re.search(waiting[0].pattern, text):
                take(waiting.pop(0).picture)
            elif text != answered and QUESTION.search(text):
                answered = text
                terminal.tell("send-keys", "Enter")
            if time.monotonic() > until:
                sys.exit(f"record-session: {step.command} does not end:\n{text}")
            time.sleep(0.03)
    take(step.picture)
    if terminal.exit_code() != 0:
        sys.exit(f"record-session: {step.command} failed:\n{terminal.text()}")
    if waiting:
        sys.exit(f"record-session: {step.command} never showed {waiting[0].pattern}")


@contextmanager
def session(size: tuple[int, int]) -> Iterator[tuple[Terminal, dict[str, LabDomain]]]:
    """Guests, a place for backups, and a terminal with a shell."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vbr-")))
        mount(stack, ["-t", "tmpfs", "tmpfs", "/srv"])
        mount(stack, ["-t", "tmpfs", "tmpfs", "/mnt"])
        disk, backups = work / "disk", Path("/mnt/backups")
        backups.mkdir()
        with disk.open("wb") as file:
            file.truncate(4096 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
        mount(stack, ["-o", "loop", disk, backups])
        daemon = stack.enter_context(open_daemon())
        guests = dict(stack.enter_context(running_guests(daemon)))
        yield stack.enter_context(open_terminal(work, daemon.uri, size)), guests


def mount(stack: ExitStack, words: list[object]) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)
    stack.callback(subprocess.run, ["umount", str(words[-1])], check=True)


@contextmanager
def running_guests(daemon: Daemon) -> Iterator[dict[str, LabDomain]]:
    """Two guests that run and one that does not, with data that takes a while to copy."""
    with ExitStack() as stack:
        disks = {
            "web-1": [DiskSpec("vda", size_bytes=512 * MIB)],
            "db-1": [
                DiskSpec("vda", size_bytes=256 * MIB),
                DiskSpec("vdb", size_bytes=1024 * MIB, fs=None),
            ],
        }
        guests = {
            name: stack.enter_context(running(daemon, name, specs, writer="vda"))
            for name, specs in disks.items()
        }
        guests["mail"] = define(daemon, "mail", [DiskSpec("vda", "raw")])
        stack.callback(guests["mail"].undefine)
        guests["web-1"].guest_exec(random_data("/mnt/vda/www", 160))
        guests["db-1"].guest_exec(random_data("/mnt/vda/log", 96))
        guests["db-1"].guest_exec(random_data("/dev/vdb", 320))
        yield guests


def random_data(path: str, mib: int) -> str:
    return f"dd if=/dev/urandom of={path} bs=1M count={mib} 2>/dev/null; sync"


if __name__ == "__main__":
    main()
