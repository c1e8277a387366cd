"""Many hosts back up their guests into one object store, night after night: what does it take?

    scripts/bench --only scale --hosts 100 --guests 20 --nights 30

Starts SeaweedFS as the tests do. Each night all hosts back up all of their guests, some processes
side by side, each with one host after the other (``scale_host.py``). The engine and the repository
are the real ones; libvirt is not. Some hosts are killed at a random write. Each host applies its
retention and prunes every few nights, in turn. In the end everything that is listed is compared
with what the disks held.

Prints a line a night, and writes all figures to ``scale.json``.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import anyio
import msgspec
import obstore
import obstore.store

from benchmarks.scale_check import Checked, check
from benchmarks.scale_host import HostNight, Phase, Work
from object_server import BUCKET, KEYS, shared_object_server
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.objects.traffic import kind_of

_PREFIX = "scale"
RESTORED = 20
_KILLED = -9
_PRICE = {"put": 5e-6, "list": 5e-6, "get": 4e-7, "head": 4e-7, "delete": 0.0}
"""Dollars for a request, as S3 in us-east-1 has them."""


class Size(msgspec.Struct):
    """How much is simulated.

    Attributes:
        hosts: how many.
        guests: of each host.
        nights: how many.
        processes: that work side by side.
        clean_every: each host cleans after so many nights.
        killed: hosts of a night that are killed at one of their writes.
    """

    hosts: int
    guests: int
    nights: int
    processes: int = 2
    clean_every: int = 5
    killed: int = 1


class Night(msgspec.Struct):
    """The figures of a night.

    Attributes:
        number: from 0 on.
        seconds: by the real clock, of all hosts.
        backup: the sums of all hosts.
        clean: the sums of the hosts whose turn it was.
        cleaned: how many hosts those were.
        done: the backups that were made.
        swept_bytes: what prunes removed.
        objects: in the bucket afterwards, by kind of file.
        stored_bytes: the lengths of them all.
        problems: what was said, and how often.
        killed: the hosts that were.
        memory_bytes: the most that a process had that was one host alone.
    """

    number: int
    seconds: float
    backup: Phase
    clean: Phase
    cleaned: int
    done: int
    swept_bytes: int
    objects: dict[str, int]
    stored_bytes: int
    problems: dict[str, int]
    killed: int = 0
    memory_bytes: int = 0


class Simulated(msgspec.Struct):
    """All nights, and what was found in the end.

    Attributes:
        size: how much was simulated.
        nights: their figures.
        checked: what was compared with the disks.
    """

    size: Size
    nights: list[Night]
    checked: Checked | None = None


class Place:
    """Where the simulated hosts work: a bucket, and a directory."""

    def __init__(self, endpoint: str, directory: Path) -> None:
        self.target = StorageLocation("s3", f"{BUCKET}/{_PREFIX}", endpoint=endpoint)
        self.endpoint = endpoint
        self.directory = directory
        options = {"allow_http": True}
        self._client = obstore.store.S3Store(
            BUCKET, prefix=_PREFIX, config={"endpoint": endpoint}, client_options=options
        )  # type: ignore[call-overload]

    def objects(self) -> Iterator[tuple[str, int]]:
        """Yield the names and lengths of all objects."""
        for page in obstore.list(self._client):
            yield from ((entry["path"], entry["size"]) for entry in page)

    def run(self, work: Work) -> Iterator[HostNight]:
        """Play the night of some hosts in a process of its own."""
        argv = [sys.executable, "-m", "benchmarks.scale_host", msgspec.json.encode(work).decode()]
        path = os.pathsep.join(entry for entry in sys.path if entry)
        environment = {**os.environ, "PYTHONPATH": path}
        ended = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
        if ended.returncode != (_KILLED if work.dies_at else 0):
            raise RuntimeError(f"a host ended with {ended.returncode}: {ended.stderr}")
        for line in ended.stdout.splitlines():
            yield msgspec.json.decode(line, type=HostNight)


def simulate(size: Size, place: Place, restored: int = RESTORED) -> Simulated:
    """Play all nights, and compare what is listed in the end; restore some of it as a whole."""
    simulated = Simulated(size, [])
    begun_s: list[float] = []
    for number in range(size.nights):
        begun_s.append(time.time())
        night = _play(size, place, number, begun_s)
        simulated.nights.append(night)
        print(_line(night), flush=True)
    simulated.checked = anyio.run(check, place.target, place.directory, restored)
    return simulated


def _play(size: Size, place: Place, number: int, begun_s: list[float]) -> Night:
    numbers = random.Random(number)  # noqa: S311
    killed = numbers.sample(range(size.hosts), size.killed if number else 0)
    cleaning = [host for host in range(size.hosts) if (host + number) % size.clean_every == 0]
    living = [host for host in range(size.hosts) if host not in killed]

    def work(hosts: list[int], dies_at: int = 0) -> Work:
        return Work(
            hosts, size.guests, number, begun_s, place.target.path, place.endpoint,
            str(place.directory), [] if dies_at else cleaning, dies_at,
        )  # fmt: skip

    works = [work([host], numbers.randint(1, 2 * size.guests)) for host in killed]
    works += [work(living[at :: size.processes]) for at in range(size.processes)]
    begun = time.monotonic()
    with ThreadPoolExecutor(size.processes + size.killed) as threads:
        groups = [*threads.map(lambda it: [*place.run(it)], works)]
    seconds = time.monotonic() - begun
    night = _summed(number, seconds, [*chain.from_iterable(groups)], [*place.objects()])
    night.killed = len(killed)
    # A process that has been other hosts before has more in memory than a host.
    night.memory_bytes = max(group[0].memory_bytes for group in groups if group)
    return night


def _summed(
    number: int,
    seconds: float,
    played: Sequence[HostNight],
    objects: Sequence[tuple[str, int]],
) -> Night:
    cleaned = [one.clean for one in played if one.clean is not None]
    return Night(
        number,
        seconds,
        _sum_of(one.backup for one in played),
        _sum_of(cleaned),
        len(cleaned),
        sum(one.done for one in played),
        sum(one.swept_bytes for one in played),
        dict(Counter(kind_of(name) for name, _ in objects)),
        sum(length for _, length in objects),
        dict(Counter(problem for one in played for problem in one.problems)),
    )


def _sum_of(phases: Iterable[Phase]) -> Phase:
    total = Phase()
    requests: defaultdict[str, int] = defaultdict(int)
    for phase in phases:
        total.seconds += phase.seconds
        total.sent_bytes += phase.sent_bytes
        total.received_bytes += phase.received_bytes
        for key, count in phase.requests.items():
            requests[key] += count
    total.requests = dict(sorted(requests.items()))
    return total


def _line(night: Night) -> str:
    total = sum(night.backup.requests.values())
    cleaning = sum(night.clean.requests.values())
    dollars = sum(
        count * _PRICE[key.split()[0]]
        for phase in (night.backup, night.clean)
        for key, count in phase.requests.items()
    )
    return (
        f"night {night.number:2}: {night.seconds:6.1f} s, {night.done} backups, "
        f"{total / max(1, night.done):.1f} requests each, "
        f"{cleaning / max(1, night.cleaned):.0f} a clean ({night.cleaned}), "
        f"{night.clean.seconds / max(1, night.cleaned):.1f} s a clean, "
        f"{sum(night.objects.values())} objects ({night.objects}), "
        f"{night.stored_bytes / 1e6:.1f} MB, received {night.backup.received_bytes / 1e6:.1f} and "
        f"{night.clean.received_bytes / 1e6:.1f} MB, memory {night.memory_bytes / 1e6:.0f} MB, "
        f"${dollars:.4f}, {sum(night.problems.values())} problems"
    )


def _checked_line(simulated: Simulated) -> str:
    checked = simulated.checked
    if checked is None:
        return "nothing was compared"
    return (
        f"{checked.listed} backups are listed, their {checked.chunks} chunks are as they were, and "
        f"so are {checked.restored} restored images ({checked.seconds:.0f} s)"
    )


def run(size: Size, output: Path) -> None:
    """Simulate, and write the figures."""
    output.mkdir(parents=True, exist_ok=True)
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = KEYS
    with (
        tempfile.TemporaryDirectory(prefix="virtbackup-scale-") as directory,
        shared_object_server(Path(directory) / "server") as server,
    ):
        os.environ["VIRTBACKUP_CACHE_DIRECTORY"] = f"{directory}/cache"
        simulated = simulate(size, Place(server.endpoint, Path(directory)))
    figures = output / "scale.json"
    figures.write_bytes(msgspec.json.format(msgspec.json.encode(simulated), indent=1) + b"\n")
    print(_checked_line(simulated))
    print(f"written to {figures}")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this simulation."""
    parser.add_argument("--hosts", type=int, default=10, help="of the simulation `scale`")
    parser.add_argument("--guests", type=int, default=5, help="of each of its hosts")
    parser.add_argument("--nights", type=int, default=10, help="that it plays")
    parser.add_argument("--processes", type=int, default=2, help="that play its hosts at once")


def size_of(options: argparse.Namespace) -> Size:
    """Return what the options ask for."""
    return Size(
        options.hosts, options.guests, options.nights, options.processes,
        killed=max(1, options.hosts // 20),
    )  # fmt: skip
