"""Repositories in an object store: a first backup, one of which nothing changed, a restore.

Beside restic in the same store, and what the store takes by itself for the same packs. The store is
SeaweedFS, on this machine: it takes processor time from all of them. Its own metrics count the
requests of each.
"""

import re
import secrets
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import yaml

from benchmarks import contenders as by
from benchmarks import plain_store
from benchmarks.cases import Bench
from benchmarks.measure import run
from benchmarks.race import Contender, say
from benchmarks.world import MIB, World, content_file, paused, start_paused
from lab.disks import DiskSpec
from lab.domains import LabDomain
from lab.process import run as run_tool
from object_server import BUCKET, KEYS, ObjectServer, shared_object_server

DIRECTORY, S3, SEALED = "virtbackup, directory", "virtbackup, S3", "virtbackup, S3, encrypted"
UPLOAD, DOWNLOAD = "plain upload of the packs", "plain reads of the packs"
RESTIC = "restic, S3"
FIRST, NOTHING, RESTORE = "store: first backup", "store: nothing changed", "store: restore"
_REQUESTS = re.compile(r"^SeaweedFS_s3_request_total\{.*\} ([\d.e+]+)$", re.MULTILINE)


@dataclass
class Requests:
    """How many requests the store got, by contender, in the last run of each."""

    server: ObjectServer
    counts: dict[str, int] = field(default_factory=dict)
    before: int = 0

    def begin(self) -> None:
        """Count from here."""
        self.before = self._total()

    def end(self, name: str) -> None:
        """Note what a contender has sent."""
        self.counts[name] = self._total() - self.before

    def words(self) -> str:
        """A sentence."""
        counted = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        return f"Requests, in the last round: {counted}."

    def _total(self) -> int:
        address = f"http://127.0.0.1:{self.server.metrics_port}/metrics"
        with urllib.request.urlopen(address, timeout=30) as answer:
            return int(sum(map(float, _REQUESTS.findall(answer.read().decode()))))


@dataclass
class Ours:
    """This program with a target of its own, and a guest that nobody else backs up."""

    name: str
    world: World
    domain: LabDomain
    server: ObjectServer
    prefix: str = ""

    @property
    def place(self) -> Path:
        """Where its files are."""
        return self.world.place / f"store-{self.domain.name}"

    @property
    def target(self) -> Path:
        """The directory, for the one that has its repository there."""
        return self.place / "target"

    @property
    def argv(self) -> list[str]:
        """The program, with its configuration."""
        return [by.program(), "-c", str(self.place / "config.yml")]

    def begin_anew(self) -> None:
        """Give it an empty target."""
        by.forget_checkpoints(self.world, self.domain.name)
        shutil.rmtree(self.place, ignore_errors=True)
        self.target.mkdir(parents=True)
        self.prefix = secrets.token_hex(8)
        scratch = self.world.place / "scratch"
        scratch.mkdir(exist_ok=True)
        s3 = {"url": f"s3://{BUCKET}/{self.prefix}", "endpoint": self.server.endpoint}
        group: dict[str, object] = {
            "target": str(self.target) if self.name == DIRECTORY else s3,
            "packager": "repository",
            "quiesce": False,
            "scratch": str(scratch),
            "hosts": [self.domain.name],
        }
        if self.name == SEALED:
            group["encryption"] = {"key_file": str(self.place / "key")}
        content = {"uri": self.world.daemon.uri, "groups": {"all": group}}
        (self.place / "config.yml").write_text(yaml.safe_dump(content))

    def backup(self) -> Contender:
        """``virtbackup backup``."""
        argv = [*self.argv, "backup", "all", "--json"]
        return Contender(self.name, argv, env=_environment(self.place), is_ours=True)

    def restore(self) -> Contender:
        """``virtbackup restore`` of the newest backup."""
        output = self.place / "restored"
        argv = [*self.argv, "restore", "all", self.domain.name, str(output)]
        reads = self.target if self.name == DIRECTORY else None
        environment = _environment(self.place)
        return Contender(self.name, argv, output, env=environment, is_ours=True, reads=reads)


@dataclass
class Restic:
    """restic in the same bucket."""

    world: World
    server: ObjectServer
    image: Path
    prefix: str = ""

    def begin_anew(self) -> None:
        """Make an empty repository."""
        self.prefix = secrets.token_hex(8)
        run([*self._argv(), "init"], self._env())

    def backup(self) -> Contender:
        """``restic backup``; the repository's name is in the environment, and new each time."""
        argv = ["sh", "-ec", '. "$0"; exec restic -q backup "$1"', str(self._file), str(self.image)]
        return Contender(RESTIC, argv, env=self._env(), program="restic")

    def restore(self) -> Contender:
        """``restic restore`` of the newest backup."""
        output = self.world.place / "restic-restored"
        script = '. "$0"; exec restic -q restore latest --target "$1"'
        argv = ["sh", "-ec", script, str(self._file), str(output)]
        return Contender(RESTIC, argv, output, env=self._env(), program="restic")

    @property
    def _file(self) -> Path:
        return self.world.place / "restic-repository"

    def _argv(self) -> list[str]:
        repository = f"s3:{self.server.endpoint}/{BUCKET}/restic-{self.prefix}"
        self._file.write_text(f"export RESTIC_REPOSITORY={repository}\n")
        return ["restic", "-q", "-r", repository]

    def _env(self) -> dict[str, str]:
        cache = str(self.world.place / "restic-cache")
        return _environment(self.world.place) | {
            "RESTIC_PASSWORD": "benchmark", "RESTIC_CACHE_DIR": cache,
        }  # fmt: skip


def store(bench: Bench) -> None:
    """The three races."""
    world = bench.world
    with shared_object_server(world.place / "object-server") as server, ExitStack() as cleanup:
        ours = [
            Ours(name, world, cleanup.enter_context(_domain(world, domain)), server)
            for name, domain in ((DIRECTORY, "plain"), (S3, "remote"), (SEALED, "sealed"))
        ]
        restic = Restic(world, server, content_file(world, world.sizes.vda * MIB))
        counter = Requests(server)
        _first(bench, ours, restic, counter)
        _nothing(bench, ours, restic, counter)
        _restore(bench, ours, restic, counter)


def _first(bench: Bench, ours: list[Ours], restic: Restic, counter: Requests) -> None:
    directory, server = ours[0], counter.server
    argv = [
        *(sys.executable, plain_store.__file__, "upload", server.endpoint, "plain"),
        str(directory.target),
    ]
    contenders = [
        *(replace(one.backup(), setup=one.begin_anew) for one in ours),
        replace(restic.backup(), setup=restic.begin_anew),
        Contender(UPLOAD, argv, env=_environment(directory.place)),
    ]
    mib = bench.world.sizes.vda
    about = f"{mib} MiB of files on a paused guest, into an empty repository; SeaweedFS beside it."
    _run(bench, FIRST, about, contenders, counter)


def _nothing(bench: Bench, ours: list[Ours], restic: Restic, counter: Requests) -> None:
    say("first backups, for those of which nothing changed")
    for each in ours:
        each.begin_anew()
        run(each.backup().argv, each.backup().env)
    contenders = [each.backup() for each in ours]
    if shutil.which("restic"):
        contenders.append(restic.backup())
    about = "The same guests again; the whole command. restic compares the time of the file alone."
    _run(bench, NOTHING, about, contenders, counter)


def _restore(bench: Bench, ours: list[Ours], restic: Restic, counter: Requests) -> None:
    remote, server = ours[1], counter.server
    argv = [sys.executable, plain_store.__file__, "download", server.endpoint, remote.prefix]
    contenders = [
        *(each.restore() for each in ours),
        restic.restore(),
        Contender(DOWNLOAD, argv, env=_environment(remote.place)),
    ]
    about = "Into a directory, each its own backup; the plain reads are kept nowhere."
    _run(bench, RESTORE, about, contenders, counter)


def _run(
    bench: Bench, name: str, about: str, contenders: list[Contender], counter: Requests
) -> None:
    counter.counts.clear()
    counted = [_counted(contender, counter) for contender in contenders]
    bench.run(name, about, counted)
    figures = bench.figures.races.pop()
    bench.figures.races.append(replace(figures, about=f"{about} {counter.words()}"))


def _counted(contender: Contender, counter: Requests) -> Contender:
    """A contender whose requests are counted, but for those of its setup."""

    def begin() -> None:
        if contender.setup:
            contender.setup()
        counter.begin()

    return replace(contender, setup=begin, undo=partial(counter.end, contender.name))


def _environment(place: Path) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": KEYS[0],
        "AWS_SECRET_ACCESS_KEY": KEYS[1],
        "VIRTBACKUP_CACHE_DIRECTORY": str(place / "cache"),
    }


@contextmanager
def _domain(world: World, name: str) -> Iterator[LabDomain]:
    content = content_file(world, world.sizes.vda * MIB)
    disk = DiskSpec("vda", size_bytes=world.sizes.vda * MIB, fs=None)
    with paused(world, f"store-{name}", [disk]) as domain:
        image = domain.image("vda")
        run_tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", content, image)
        start_paused(domain)
        yield domain


STORE_CASES: dict[str, Callable[[Bench], None]] = {"store": store}
