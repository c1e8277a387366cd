"""How fast `serve` is: `nbdcopy` out of each packager, next to a restore and to `qemu-nbd`.

    scripts/bench --only serve

It races nothing against other programs, so it is a table of its own: the best of some rounds, in
turns. The first byte is counted from the start of the command; memory is that of the server while
four clients copy.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
from msgspec import json

from benchmarks.page import table
from benchmarks.race import say
from fakes.stored_backup import StoredBackup
from virtbackup_async.model.backup import Packager

MIB = 1 << 20
NAME = "serve"
PACKAGERS = ("directory", "tar", "zstd", "repository")
_DATA_MIB, _QUICK_DATA_MIB = 1024, 64
_CLIENTS = 4
_PROGRAM = Path(sys.executable).with_name("virtbackup")


class Served(NamedTuple):
    """A server, its address, and the seconds from its start to the first byte."""

    process: "subprocess.Popen[bytes]"
    uri: str
    first_byte_s: float

    def memory_mib(self) -> int:
        """The most memory that it has used so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) // 1024


def run(output: Path, *, quick: bool) -> None:
    """Measure, print the table, and write it into ``output``."""
    data_mib, rounds = (_QUICK_DATA_MIB, 1) if quick else (_DATA_MIB, 5)
    with tempfile.TemporaryDirectory(prefix="virtbackup-serve-bench-") as made:
        directory = Path(made)
        image = directory / "image"
        _make_image(image, data_mib)
        rows = [_qemu_nbd(directory, image, rounds)]
        for packager in PACKAGERS:
            say(f"{NAME}: {packager}")
            rows.append(_packager(directory, image, packager, rounds))
    heads = ["", "nbdcopy to a file", "nbdcopy to null:", "restore", "first byte", "memory"]
    text = f"{data_mib} MiB of data that compresses by half.\n\n{table(heads, rows)}\n"
    output.mkdir(parents=True, exist_ok=True)
    (output / "serve.md").write_text(f"# Serve\n\n{text}")
    print(text)


def _make_image(image: Path, data_mib: int) -> None:
    with image.open("wb") as file, Path("/dev/urandom").open("rb") as noise:
        for _ in range(data_mib):
            file.write(b"".join(noise.read(64) + bytes([65]) * 64 for _ in range(MIB // 128)))
        file.truncate(2 * data_mib * MIB)


def _qemu_nbd(directory: Path, image: Path, rounds: int) -> list[str]:
    socket = directory / "qemu"
    words = ["qemu-nbd", "-r", "-t", "-e", "8", "-f", "raw", "-k", socket, image]
    with subprocess.Popen(words) as process:
        try:
            while not socket.exists():
                time.sleep(0.01)
            uri = f"nbd+unix:///?socket={socket}"
            return ["qemu-nbd", *_copies(directory, uri, rounds), "", "", ""]
        finally:
            process.kill()


def _packager(directory: Path, image: Path, packager: str, rounds: int) -> list[str]:
    target = directory / packager
    anyio.run(StoredBackup(target, Packager(packager)).make, image)
    restored = min(_restore(target, directory / "restored") for _ in range(rounds))
    with _serving(target) as served:
        first_s = served.first_byte_s
        copies = _copies(directory, served.uri, rounds)
        clients = [subprocess.Popen(["nbdcopy", served.uri, "null:"]) for _ in range(_CLIENTS)]
        for client in clients:
            client.wait()
        memory = served.memory_mib()
    return [packager, *copies, f"{restored:.2f} s", f"{first_s:.2f} s", f"{memory} MiB"]


@contextmanager
def _serving(target: Path) -> Iterator[Served]:
    began_s = time.monotonic()
    words = [_PROGRAM, "serve", "--target", target, "web", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            events = (json.decode(line) for line in process.stdout or ())
            uri = next(one for one in events if one["event"] == "backup_served")["disks"][0]["uri"]
            subprocess.run(
                ["qemu-io", "-r", "-f", "raw", "-c", "read 0 512", uri],
                check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            yield Served(process, uri, time.monotonic() - began_s)
        finally:
            process.terminate()
            process.wait()


def _restore(target: Path, place: Path) -> float:
    seconds = _timed(_PROGRAM, "restore", "--target", target, "web", place, "-q")
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    return seconds


def _copies(directory: Path, uri: str, rounds: int) -> list[str]:
    best = []
    for output in (directory / "copy", "null:"):
        seconds = []
        for _ in range(rounds):
            (directory / "copy").unlink(missing_ok=True)
            seconds.append(_timed("nbdcopy", uri, output))
        best.append(f"{min(seconds):.2f} s")
    return best


def _timed(*words: object) -> float:
    began_s = time.monotonic()
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began_s
