"""The night of some hosts, one after the other, in this process: ``scale.py`` starts it.

    python -m benchmarks.scale_host WORK

WORK is a ``Work`` in JSON. Each host has a name, a kernel, a state directory and a cache of its
own, as far as the program can tell. Prints a line of JSON for each host, a ``HostNight``.

Time is simulated: the dates of backups are those of the nights, and so are the times that the store
gives to its objects. So a lease that was left on the night before has expired by now.
"""

import os
import resource
import signal
import socket
import sys
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_DNS, uuid5

import anyio
import msgspec
import yaml
from blake3 import blake3

from benchmarks.scale_disks import disk, write_image
from fakes.hypervisor import DescribedDomain, FakeHypervisor
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.host_state import STATE_VARIABLE
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.events import BackupDone, Event, RepositorySwept, Warned
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage import leases
from virtbackup_async.repository.storage.objects import cache, calls, lease, probe, storage
from virtbackup_async.repository.storage.objects.answers import Meta, meta_of
from virtbackup_async.repository.storage.objects.connecting import shared_object_storage

DAY_S = 86_400.0
FIRST_S = datetime(2026, 3, 1, 2, 15, tzinfo=UTC).timestamp()
RETENTION = {"hourly": 0, "daily": 7, "weekly": 4, "monthly": 0, "yearly": 0}


class Work(msgspec.Struct):
    """What a process does.

    Attributes:
        hosts: the numbers of the hosts.
        guests: of each host.
        night: its number, from 0 on.
        begun_s: when each night began by the real clock, this one included.
        bucket: the bucket and the prefix of the target.
        endpoint: of the store.
        place: a directory for all that hosts keep.
        cleaning: the hosts that apply retention and prune after their backups.
        dies_at: the number of the write at which the process is killed; 0 for none.
    """

    hosts: list[int]
    guests: int
    night: int
    begun_s: list[float]
    bucket: str
    endpoint: str
    place: str
    cleaning: list[int]
    dies_at: int = 0


class Phase(msgspec.Struct):
    """What one command of a host took.

    Attributes:
        seconds: by the real clock.
        requests: by verb and kind of file.
        sent_bytes: to the store.
        received_bytes: from the store.
    """

    seconds: float = 0.0
    requests: dict[str, int] = {}
    sent_bytes: int = 0
    received_bytes: int = 0


class HostNight(msgspec.Struct):
    """What a host did in a night.

    Attributes:
        host: its number.
        done: how many guests were backed up.
        problems: what was said of the others, and of the prune.
        backup: of all its guests.
        clean: retention and prune; None if it was not its turn.
        swept_bytes: what the prune removed.
        memory_bytes: the most that the process has had so far.
    """

    host: int
    done: int
    problems: list[str]
    backup: Phase
    clean: Phase | None
    swept_bytes: int
    memory_bytes: int


def guest_name(host: int, guest: int) -> str:
    """Return the name of a guest; no two hosts have one of the same name."""
    return f"h{host:04}-g{guest:03}"


def guest_number(name: str) -> int:
    """Return the number by which a guest's disk is made."""
    host, guest = name[1:].split("-g")
    return int(host) * 1000 + int(guest)


def date_of(night: int) -> datetime:
    """Return the time at which all backups of a night are made."""
    return datetime.fromtimestamp(FIRST_S + night * DAY_S).astimezone()


class Simulation:
    """What makes one process look like many hosts, on other days than today."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._writes = 0
        self._host = ""
        calls.meta_of = self._meta_of  # type: ignore[attr-defined]
        for module in (leases, probe, storage):
            module.host_id = lambda: self._host
        lease.kernel_id = lambda: f"{blake3(self._host.encode()).hexdigest(length=16)}-1"  # type: ignore[attr-defined]
        socket.gethostname = lambda: self._host
        if work.dies_at:
            create = calls.ObjectCalls.put_new
            calls.ObjectCalls.put_new = self._counted(create)  # type: ignore[method-assign]

    def become(self, host: int) -> Path:
        """Be a host from now on; return its directory."""
        self._host = f"host-{host:04}"
        place = Path(self._work.place) / self._host
        place.mkdir(parents=True, exist_ok=True)
        os.environ[STATE_VARIABLE] = str(place / "state")
        os.environ[cache.VARIABLE] = str(place / "cache")
        return place

    def _meta_of(self, entry: object) -> Meta:
        meta = meta_of(entry)
        begun_s = self._work.begun_s
        night = max(0, bisect_right(begun_s, meta.modified_s) - 1)
        at_s = FIRST_S + night * DAY_S + meta.modified_s - begun_s[night]
        return msgspec.structs.replace(meta, modified_s=at_s)

    def _counted(self, create: Callable[..., Meta]) -> Callable[..., Meta]:
        def counted(*args: object) -> Meta:
            self._writes += 1
            if self._writes == self._work.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return create(*args)

        return counted


class Measured:
    """A command's seconds and requests."""

    def __init__(self, target: StorageLocation) -> None:
        self._storage = shared_object_storage(target)
        self._before = self._storage.traffic.by_kind()
        self._begun_s = time.monotonic()

    def end(self) -> Phase:
        """Return what was taken since the beginning."""
        phase = Phase(time.monotonic() - self._begun_s)
        for key, count in self._storage.traffic.by_kind().items():
            before = self._before.get(key)
            requests = count.requests - (before.requests if before else 0)
            if requests:
                phase.requests[" ".join(key)] = requests
            phase.sent_bytes += count.sent_bytes - (before.sent_bytes if before else 0)
            phase.received_bytes += count.received_bytes - (before.received_bytes if before else 0)
        return phase


async def night_of(simulation: Simulation, work: Work, host: int) -> HostNight:
    """Back up all guests of a host, and clean if it is its turn."""
    place = simulation.become(host)
    target = StorageLocation("s3", work.bucket, endpoint=work.endpoint)
    domains = [_guest(place, work.night, host, guest) for guest in range(work.guests)]
    emitted: list[Event] = []
    date = date_of(work.night)
    runtime = Runtime(
        load_config(_configured(place, work)), emitted.append, FakeHypervisor(*domains),
        now=lambda: date, lock_directory=place / "locks",
    )  # fmt: skip
    measured = Measured(target)
    await run_backup(runtime, BackupRequest())
    backup, clean = measured.end(), None
    if host in work.cleaning:
        measured = Measured(target)
        await run_clean(runtime, CleanRequest())
        clean = measured.end()
    for domain in domains:
        domain.own["vda"].unlink()
    return HostNight(
        host,
        sum(isinstance(event, BackupDone) for event in emitted),
        [f"{event}" for event in emitted if _is_problem(event)],
        backup,
        clean,
        sum(event.freed_bytes for event in emitted if isinstance(event, RepositorySwept)),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _is_problem(event: Event) -> bool:
    return isinstance(event, Warned) or type(event).__name__.endswith("Failed")


def _guest(place: Path, night: int, host: int, guest: int) -> DescribedDomain:
    name = guest_name(host, guest)
    image = place / f"{name}.raw"
    write_image(image, disk(guest_number(name), night))
    domain = DescribedDomain({"vda": image}, active=False)
    # Locks on domains are the machine's: another simulation has other domains.
    domain.name, domain.uuid = name, str(uuid5(NAMESPACE_DNS, f"{place.parent} {name}"))
    return domain


def _configured(place: Path, work: Work) -> Path:
    target = {"url": f"s3://{work.bucket}", "endpoint": work.endpoint}
    group = {"hosts": ["r:.*"], "target": target, "packager": "repository",
             "autostart": True, **RETENTION}  # fmt: skip
    path = place / "config.yml"
    path.write_text(yaml.safe_dump({"groups": {"all": group}, "threads": 4}))
    return path


async def main() -> None:
    """Play the night of some hosts."""
    work = msgspec.json.decode(sys.argv[1], type=Work)
    simulation = Simulation(work)
    for host in work.hosts:
        played = await night_of(simulation, work, host)
        with suppress(BrokenPipeError):
            sys.stdout.write(msgspec.json.encode(played).decode() + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    anyio.run(main)
