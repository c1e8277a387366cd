"""One image copied by the data path of the directory packager, beside ``cp`` and ``sync``.

    python benchmarks/copy_path.py IMAGE TARGET [ROUNDS] [cold]

``cold`` takes the image out of the page cache before each round. Prints a line for each copy, with
the seconds of processor time and what the image leaves in the cache.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import anyio

from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream


async def copy(image: Path, target: Path) -> None:
    """Copy by the data path of the directory packager."""
    async with open_image_stream(image, BufferPool()) as stream:
        await write_sparse(stream, target, lambda _data_bytes: None)


def run_ours(image: Path, target: Path) -> None:
    """Copy with a loop of its own."""
    anyio.run(copy, image, target)


def run_cp(image: Path, target: Path) -> None:
    """Copy as an admin would, until it is on disk."""
    subprocess.run(["/bin/cp", "--reflink=never", image, target], check=True)
    subprocess.run(["/bin/sync", target], check=True)


def prepare(image: Path, target: Path, *, cold: bool) -> None:
    """Remove the last copy; put the image into the page cache, or out of it."""
    target.unlink(missing_ok=True)
    os.sync()
    with image.open("rb") as file:
        if cold:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while file.read(1 << 20):
                pass


def cpu_s() -> float:
    """Seconds of processor time of this process and its children."""
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in times)


def main() -> None:
    """Take turns."""
    image, target = Path(sys.argv[1]), Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5  # noqa: PLR2004 -- the third argument
    for _ in range(rounds):
        for name, run in (("cp and sync", run_cp), ("virtbackup", run_ours)):
            prepare(image, target, cold="cold" in sys.argv)
            began_s, cpu_before_s = time.monotonic(), cpu_s()
            run(image, target)
            wall_s, used_s = time.monotonic() - began_s, cpu_s() - cpu_before_s
            load = os.getloadavg()[0]
            print(f"{name:12} {wall_s:6.2f} s, processor {used_s:5.2f} s, load {load:.1f}")
    target.unlink()


if __name__ == "__main__":
    main()
