"""What an object store costs: an image stored in S3 and in a directory, stored again, read back.

    PYTHONPATH=.:tests/support benchmarks/object_store.py IMAGE DIRECTORY [--rounds 5]

Starts SeaweedFS as the tests do, on the loopback interface. Each round has repositories of its own.
Prints medians in seconds: of each step into both, of a plain upload of the same packs, two at once
as the program sends them, and of a plain download; then the requests of a backup of which nothing
changed. DIRECTORY is emptied.
"""

import argparse
import os
import secrets
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import obstore
import obstore.store

from object_server import BUCKET, KEYS, shared_object_server
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.packager import Location
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.repository.reader import open_reader
from virtbackup_async.packagers.repository.writer import open_writer
from virtbackup_async.repository.storage import repository_file
from virtbackup_async.repository.storage.objects.connecting import open_object_storage
from virtbackup_async.repository.storage.objects.files import UPLOADS_AT_ONCE
from virtbackup_async.repository.storage.objects.storage import ObjectStorage

PACKS = ".virtbackup-repository/packs"
HOUR_S = 3600


def package(target: StorageLocation, name: str) -> Location:
    """A package of this program."""
    return Location(Packager("repository", {}), target, "web", name)


async def store(target: StorageLocation, name: str, image: Path) -> None:
    """Make a backup of one disk."""
    async with (
        open_writer(package(target, name), CpuShares()) as writer,
        open_image_stream(image, BufferPool()) as stream,
    ):
        await writer.add_disk(f"{name}_vda.raw", stream, lambda _: None)
        await writer.finish()


async def restore(target: StorageLocation, name: str, path: Path) -> None:
    """Read it back."""
    async with (
        open_reader(package(target, name), BufferPool()) as reader,
        reader.open_disk(f"{name}_vda.raw") as stream,
    ):
        await write_sparse(stream, path, lambda _: None)


class Rounds:
    """The times of all rounds."""

    def __init__(self) -> None:
        self.times_s: defaultdict[str, list[float]] = defaultdict(list)
        self.opened: list[ObjectStorage] = []

    def take(self, what: str, work: Callable[..., Awaitable[None]], *args: object) -> None:
        """Measure one step."""
        self.opened.clear()
        begun_s = time.monotonic()
        anyio.run(work, *args)
        self.times_s[what].append(time.monotonic() - begun_s)

    def open(self, location: StorageLocation) -> ObjectStorage:
        """Open a storage, whose requests are printed."""
        self.opened.append(open_object_storage(location))
        return self.opened[-1]

    def requests(self) -> str:
        """The requests of the last step."""
        return ", ".join(
            f"{verb} {kind} {count.requests}"
            for storage in self.opened
            for (verb, kind), count in storage.traffic.by_kind().items()
        )


async def upload(endpoint: str, packs: list[Path]) -> None:
    """Send the packs as they are."""
    client = plain_client(endpoint)
    name = secrets.token_hex(8)

    def send(pack: Path) -> None:
        obstore.put(client, f"plain/{name}/{pack.name}", pack.read_bytes(), use_multipart=False)

    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as threads:
        list(threads.map(send, packs))


async def download(endpoint: str, prefix: str) -> None:
    """Read the packs as they are, one after the other."""
    client = plain_client(endpoint)
    for page in obstore.list(client, f"{prefix}/{PACKS}"):
        for entry in page:
            obstore.get(client, entry["path"]).bytes()


def plain_client(endpoint: str) -> obstore.store.S3Store:
    """A client of the library alone."""
    options: Any = {"allow_http": True, "timeout": f"{HOUR_S}s"}
    return obstore.store.S3Store(BUCKET, config={"endpoint": endpoint}, client_options=options)


def run(rounds: Rounds, endpoint: str, image: Path, directory: Path) -> None:
    """Run one round."""
    target = directory / secrets.token_hex(4)
    (target / "web").mkdir(parents=True)
    prefix = secrets.token_hex(8)
    local = StorageLocation.of(target)
    s3 = StorageLocation("s3", f"{BUCKET}/{prefix}", endpoint=endpoint)
    restored = directory / "restored"
    rounds.take("directory: first", store, local, "1", image)
    rounds.take("S3: first", store, s3, "1", image)
    rounds.take("plain upload", upload, endpoint, sorted((target / PACKS).glob("*/*.pack")))
    rounds.take("directory: nothing changed", store, local, "2", image)
    rounds.take("S3: nothing changed", store, s3, "2", image)
    print(f"requests: {rounds.requests()}", flush=True)
    rounds.take("plain download", download, endpoint, prefix)
    rounds.take("directory: restore", restore, local, "1", restored)
    restored.unlink()
    rounds.take("S3: restore", restore, s3, "1", restored)
    restored.unlink()
    print(f"requests: {rounds.requests()}", flush=True)
    shutil.rmtree(target)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("image", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    shutil.rmtree(asked.directory, ignore_errors=True)
    asked.directory.mkdir(parents=True)
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = KEYS
    os.environ["VIRTBACKUP_CACHE_DIRECTORY"] = str(asked.directory / "cache")
    rounds = Rounds()
    repository_file.STORAGES["s3"] = rounds.open
    with shared_object_server(asked.directory / "server") as server:
        for _ in range(asked.rounds):
            run(rounds, server.endpoint, asked.image, asked.directory)
        for line in Path(f"/proc/{server.pid}/status").read_text().splitlines():
            if line.startswith(("VmHWM", "VmRSS")):
                print(f"server: {line}")
    for what, times_s in rounds.times_s.items():
        print(f"{what:28} {statistics.median(times_s):8.2f} s")


if __name__ == "__main__":
    main()
