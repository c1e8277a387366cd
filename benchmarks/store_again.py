"""How long an image takes into a store, and how much it takes there: first, unchanged, changed.

    benchmarks/store_again.py IMAGE CHANGED_IMAGE DIRECTORY

For packagers ``zstd`` and ``repository`` of this program, and for restic and borg if they are
installed. Each is a process of its own; times are the whole process's. DIRECTORY is emptied.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio

from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.backup import Packager
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.registry import open_writer

MIB = 1 << 20


async def pack(packager: str, directory: Path, name: str, image: Path) -> None:
    """Make one package."""
    async with (
        open_writer(Packager(packager), directory, name, CpuShares()) as package,
        open_image_stream(image, BufferPool()) as stream,
    ):
        await package.add_disk(f"{name}_vda.raw", stream, lambda _: None)
        await package.finish()


def ours(packager: str, store: Path, name: str, image: Path) -> list[str]:
    """The command that makes one package."""
    (store / "web").mkdir(parents=True, exist_ok=True)
    return [sys.executable, __file__, "pack", packager, str(store / "web"), name, str(image)]


def restic(store: Path, name: str, image: Path) -> list[str]:
    """The command that backs up by restic."""
    command = ["restic", "-q", "-r", str(store)]
    if not store.exists():
        subprocess.run([*command, "init"], check=True, capture_output=True, env=environment())
    return [*command, "backup", "--tag", name, "--force", str(image)]


def borg(store: Path, name: str, image: Path) -> list[str]:
    """The command that backs up by borg, with the options that its manual has for images."""
    if not store.exists():
        subprocess.run(["borg", "init", "-e", "none", str(store)], check=True)
    chunker = ["--chunker-params", "fixed,4194304"]
    options = ["-C", "zstd,3", "--files-cache=disabled", *chunker]
    return ["borg", "create", *options, f"{store}::{name}", str(image)]


def environment() -> dict[str, str]:
    """What keeps the others from asking questions."""
    return {**os.environ, "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "RESTIC_PASSWORD": "x"}  # fmt: skip


def occupied_bytes(store: Path) -> int:
    """What the files of a store take."""
    return sum(path.lstat().st_blocks * 512 for path in store.rglob("*") if path.is_file())


def measure(
    title: str, command: Callable[[Path, str, Path], list[str]], images: list[Path]
) -> None:
    """Put the first image in twice and then the changed one; print times and growths."""
    store = Path(sys.argv[3]) / title
    first, changed = images
    said = []
    for name, image in (("first", first), ("unchanged", first), ("changed", changed)):
        argv = command(store, name, image)
        before = occupied_bytes(store) if store.exists() else 0
        os.sync()
        start_s = time.monotonic()
        subprocess.run(argv, check=True, env=environment(), stdout=subprocess.DEVNULL)
        taken_s = time.monotonic() - start_s
        grown = (occupied_bytes(store) - before) // MIB
        said.append(f"{name} {taken_s:.1f} s, {grown} MiB")
    print(f"{title:<12} {'; '.join(said)}; load {os.getloadavg()[0]:.1f}", flush=True)


def main() -> None:
    """Measure everything that is there."""
    images = [Path(word) for word in sys.argv[1:3]]
    shutil.rmtree(sys.argv[3], ignore_errors=True)
    Path(sys.argv[3]).mkdir(parents=True)
    for packager in ("zstd", "repository"):
        measure(packager, lambda *rest, packager=packager: ours(packager, *rest), images)
    for title, command in (("restic", restic), ("borg", borg)):
        if shutil.which(title):
            measure(title, command, images)


if __name__ == "__main__":
    if sys.argv[1] == "pack":
        anyio.run(pack, sys.argv[2], Path(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
    else:
        main()
