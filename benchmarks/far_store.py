"""What reading ahead is worth: an image read back from a store that is some milliseconds away.

    PYTHONPATH=.:tests/support benchmarks/far_store.py IMAGE DIRECTORY [--rounds 3] [--mixed]

The stores are SeaweedFS and a store server, as the tests start them, each behind a process that
delays what comes in either direction by half of the given time. With ``--mixed``, two images are
stored before, each with every other chunk of IMAGE, so that its chunks lie in two packs in turn.
Prints medians in seconds, with and without reading ahead, for 0, 5 and 50 ms. DIRECTORY is emptied.
"""

import argparse
import os
import queue
import select
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import anyio

from object_server import BUCKET, KEYS, shared_object_server
from store_servers import _SERVE, Servers, served_by
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.packager import Location
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.repository.reader import open_reader
from virtbackup_async.packagers.repository.writer import open_writer
from virtbackup_async.repository import CHUNK_BYTES, Storage, make_repository
from virtbackup_async.repository.storage import repository_file
from virtbackup_async.repository.storage.objects.connecting import open_object_storage
from virtbackup_async.repository.storage.served.process_server import ProcessServer

DELAYS_MS = (0, 5, 50)
_PIECE_BYTES = 1 << 18


def relay(read: Callable[[], bytes], write: Callable[[bytes], object], delay_s: float) -> None:
    """Pass bytes on, each so much later; return when both ends are done."""
    waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def receive() -> None:
        data = b"-"
        while data:
            try:
                data = read()
            except OSError:
                data = b""
            waiting.put((time.monotonic() + delay_s, data))

    threading.Thread(target=receive, daemon=True).start()
    while True:
        at_s, data = waiting.get()
        time.sleep(max(0.0, at_s - time.monotonic()))
        try:
            write(data)
        except OSError:
            return
        if not data:
            return


def relay_pipes(delay_s: float, command: list[str]) -> None:
    """Run a program, and delay what it reads and writes."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    to_child, from_child = cast(IO[bytes], child.stdin), cast(IO[bytes], child.stdout)
    to, back = to_child.fileno(), from_child.fileno()

    def send(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(to, view) :]
        if not data:
            to_child.close()

    def answer(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]

    there = threading.Thread(target=relay, args=(lambda: os.read(0, _PIECE_BYTES), send, delay_s))
    there.start()
    relay(lambda: os.read(back, _PIECE_BYTES), answer, delay_s)
    os.close(1)
    child.wait()
    os._exit(0)


def relay_connections(delay_s: float, port: int) -> None:
    """Listen on a port, which is printed, and delay what passes between it and another one."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        while select.select([listening, 0], [], [])[0] == [listening]:
            near, _ = listening.accept()
            far = socket.create_connection(("127.0.0.1", port))
            for one, other in ((near, far), (far, near)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=_relay_sockets, args=(one, other, delay_s)).start()


def _relay_sockets(one: socket.socket, other: socket.socket, delay_s: float) -> None:
    def send(data: bytes) -> None:
        if data:
            other.sendall(data)
        else:
            other.shutdown(socket.SHUT_WR)

    relay(lambda: one.recv(_PIECE_BYTES), send, delay_s)


def package(target: StorageLocation, name: str) -> Location:
    """A package of this program."""
    return Location(Packager("repository", {}), target, "web", name)


async def store(target: StorageLocation, name: str, image: Path) -> None:
    """Make a backup of one disk."""
    make_repository(target).storage.make_directory("web")
    async with (
        open_writer(package(target, name), CpuShares()) as writer,
        open_image_stream(image, BufferPool()) as stream,
    ):
        await writer.add_disk(f"{name}_vda.raw", stream, lambda _: None)
        await writer.finish()


async def read(target: StorageLocation, name: str) -> None:
    """Read it back, and check it."""
    async with (
        open_reader(package(target, name), BufferPool()) as reader,
        reader.open_disk(f"{name}_vda.raw") as stream,
    ):
        async for _ in stream.pieces():
            pass


async def fill(target: StorageLocation, image: Path, *, mixed: bool) -> None:
    """Store the image, after others that have its chunks if need be."""
    if mixed:
        for number in range(2):
            part = image.with_name("part")
            _write_part(image, part, number)
            await store(target, f"part{number}", part)
            part.unlink()
    await store(target, "1", image)


def _write_part(image: Path, part: Path, number: int) -> None:
    with image.open("rb") as whole, part.open("wb") as some:
        at = 0
        while chunk := whole.read(CHUNK_BYTES):
            if at % 2 == number:
                some.write(chunk)
            at += 1


@contextmanager
def delayed_endpoint(port: int, delay_s: float) -> Iterator[str]:
    """The address of a proxy before a server."""
    argv = [sys.executable, __file__, "--relay", str(delay_s), str(port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as proxy:
        yield f"http://127.0.0.1:{int(cast(IO[bytes], proxy.stdout).readline())}"
        proxy.kill()


def served(directory: Path, delay_s: float) -> Storage:
    """A directory that a store server serves, so far away."""
    command = [sys.executable, "-c", _SERVE, str(directory), ".virtbackup-repository"]
    delayed = [sys.executable, __file__, "--relay", str(delay_s), *command]
    return served_by(Servers(lambda: ProcessServer(delayed, lambda _ended: None)))


class _Near:
    """A storage of which nothing is read ahead."""

    reads_at_once = 1

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> object:
        return getattr(self._storage, name)


def take(place: StorageLocation, make: Callable[[], Storage], *, ahead: bool) -> float:
    """Measure one reading."""
    storage = make()
    opened = storage if ahead else _Near(storage)
    repository_file.STORAGES[place.kind] = lambda _: opened  # type: ignore[assignment,return-value]
    begun_s = time.monotonic()
    anyio.run(read, place, "1")
    return time.monotonic() - begun_s


def measure(asked: argparse.Namespace, endpoint: str) -> None:
    """Measure both kinds of stores, and print."""
    directory = asked.directory / "target"
    directory.mkdir()
    s3 = StorageLocation("s3", f"{BUCKET}/far-{os.getpid()}", endpoint=endpoint)
    ssh = StorageLocation.of("ssh://nas/srv/backups")
    for target in (StorageLocation.of(directory), s3):
        anyio.run(lambda at=target: fill(at, asked.image, mixed=asked.mixed))  # type: ignore[misc]
    times_s: defaultdict[tuple[str, int, bool], list[float]] = defaultdict(list)
    for _ in range(asked.rounds):
        for delay_ms in DELAYS_MS:
            delay_s = delay_ms / 2000
            with delayed_endpoint(int(endpoint.rpartition(":")[2]), delay_s) as near:
                place = StorageLocation("s3", s3.path, endpoint=near)
                for ahead in (False, True):
                    took_s = take(place, lambda at=place: open_object_storage(at), ahead=ahead)  # type: ignore[misc]
                    times_s["S3", delay_ms, ahead].append(took_s)
            for ahead in (False, True):
                took_s = take(ssh, lambda by=delay_s: served(directory, by), ahead=ahead)  # type: ignore[misc]
                times_s["store server", delay_ms, ahead].append(took_s)
    for kind in ("S3", "store server"):
        for delay_ms in DELAYS_MS:
            alone, ahead = (
                statistics.median(times_s[kind, delay_ms, way]) for way in (False, True)
            )
            print(f"{kind:13} {delay_ms:3} ms: {alone:7.2f} s, read ahead {ahead:7.2f} s")


def main() -> None:
    """Run what the command line asks for, or be what delays."""
    if sys.argv[1:2] == ["--relay"]:
        delay_s, rest = float(sys.argv[2]), sys.argv[3:]
        if len(rest) == 1:
            relay_connections(delay_s, int(rest[0]))
        else:
            relay_pipes(delay_s, rest)
        os._exit(0)
    parser = argparse.ArgumentParser()
    parser.add_argument("image", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mixed", action="store_true")
    asked = parser.parse_args()
    shutil.rmtree(asked.directory, ignore_errors=True)
    asked.directory.mkdir(parents=True)
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = KEYS
    os.environ["VIRTBACKUP_CACHE_DIRECTORY"] = str(asked.directory / "cache")
    with shared_object_server(asked.directory / "server") as server:
        measure(asked, server.endpoint)
    print(f"load {os.getloadavg()[0]:.1f}")
    shutil.rmtree(asked.directory)


if __name__ == "__main__":
    main()
