"""How fast the NBD client reads, against `nbdcopy`: the same server, one process each, in turns.

    python benchmarks/nbd_read.py [--mib N] [--runs N] [--connections N] [--at-once N]

`qemu-nbd` serves random bytes from the page cache over a Unix socket. Both read all of it and throw
it away; both ask for the block status first. The time of `nbdcopy` is its process's, ours that of
the copy: the interpreter starts once for many disks.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from virtbackup_async.nbd import NbdClient, UnixAddress, open_nbd, walk_status
from virtbackup_async.nbd.protocol.constants import BASE_ALLOCATION, STATE_ZERO

MIB = 1 << 20


@contextmanager
def serving(directory: Path, size_bytes: int) -> Iterator[Path]:
    """Serve random bytes; yields the socket."""
    image, socket, pid = (directory / name for name in ("disk.raw", "sock", "pid"))
    with image.open("wb") as file:
        for _ in range(size_bytes // MIB):
            file.write(os.urandom(MIB))
    words = ["--read-only", "--persistent", "--shared=8", "-f", "raw", "--socket", socket]
    with subprocess.Popen(["qemu-nbd", *words, "--pid-file", pid, image]) as server:
        try:
            while not pid.exists():
                time.sleep(0.01)
            yield socket
        finally:
            server.kill()


async def read_data(client: NbdClient, at_once: int) -> int:
    """Read what is not zeros, and throw it away; returns how many bytes that was."""
    read_bytes = 0
    runs = [run async for run in walk_status(client, [BASE_ALLOCATION])]
    pieces = iter(
        (start, min(MIB, run.end - start))
        for run in runs
        if not run.flags[0] & STATE_ZERO
        for start in range(run.start, run.end, MIB)
    )

    async def reader() -> None:
        nonlocal read_bytes
        buffer = memoryview(bytearray(MIB))
        for start, length in pieces:
            await client.read_into(start, buffer[:length])
            read_bytes += length

    async with anyio.create_task_group() as tasks:
        for number in range(at_once):
            tasks.start_soon(reader, name=f"reader {number}")
    return read_bytes


async def ours_s(socket: Path, connections: int, at_once: int) -> float:
    """Time one copy of ours, from the connection to its end."""
    began_s = time.perf_counter()
    address = UnixAddress(socket)
    async with open_nbd(address, contexts=[BASE_ALLOCATION], connections=connections) as client:
        await read_data(client, at_once)
    return time.perf_counter() - began_s


def nbdcopy_s(socket: Path) -> float:
    """Time one copy by nbdcopy, with its own defaults."""
    began_s = time.perf_counter()
    subprocess.run(["nbdcopy", f"nbd+unix:///?socket={socket}", "null:"], check=True)
    return time.perf_counter() - began_s


def main() -> None:
    """Run it as the module says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=4)
    options = parser.parse_args()
    size_bytes = options.mib * MIB
    times: dict[str, list[float]] = {"virtbackup-async": [], "nbdcopy": []}
    with tempfile.TemporaryDirectory() as scratch, serving(Path(scratch), size_bytes) as socket:
        for _ in range(options.runs):
            ours = anyio.run(ours_s, socket, options.connections, options.at_once)
            times["virtbackup-async"].append(ours)
            times["nbdcopy"].append(nbdcopy_s(socket))
    for name, taken in times.items():
        median, least = statistics.median(taken), min(taken)
        figures = ", ".join(
            f"{what} {taken_s:.3f} s ({size_bytes / taken_s / 1e9:.2f} GB/s)"
            for what, taken_s in (("median", median), ("least", least))
        )
        print(f"{name:<17} {figures}")
    medians = [statistics.median(taken) for taken in times.values()]
    print(f"speed against nbdcopy: {medians[1] / medians[0]:.2f}")


if __name__ == "__main__":
    main()
