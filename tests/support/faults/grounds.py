"""Where processes die: one ground for each kind of storage, which makes places that are alike."""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import obstore
import obstore.store
from msgspec.structs import replace

from fakes.any_place import AnyPlace
from faults.dying_process import NEVER, Death, Died
from faults.dying_process import __file__ as program
from object_server import BUCKET, ObjectServer
from store_servers import served
from virtbackup_async.model.storage_location import LOCAL, SSH, StorageLocation
from virtbackup_async.repository import hold_key, key_of_paper, new_paper, written_on_paper
from virtbackup_async.repository.storage.layout import DIRECTORY
from virtbackup_async.repository.storage.local import LocalStorage
from virtbackup_async.repository.storage.objects import cache
from virtbackup_async.repository.storage.repository_file import STORAGES
from virtbackup_async.repository.storage.served.storage import ServedStorage

KINDS = ("encrypted", "sealed", "s3", "encrypted s3", "ssh", "ssh server")
QUICK_POINTS = 4
_PIPE = "pipe"
_TARGET, _KEY = "target", "key"


class Dying:
    """The program that forks processes which die; one for many deaths."""

    def __init__(self) -> None:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            [sys.executable, program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def play(self, death: Death) -> Died:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(msgspec.json.encode(death, enc_hook=str).decode() + "\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=Died)

    def end(self) -> None:
        self._process.communicate(timeout=60)


@contextmanager
def dying() -> Iterator[Dying]:
    program = Dying()
    try:
        yield program
    finally:
        program.end()


class Ground:
    """Makes places of a kind of storage.

    Attributes:
        kind: one of ``KINDS``.
    """

    def __init__(
        self,
        kind: str,
        directory: Path,
        dying: Dying | None,
        server: ObjectServer | None,
        monkeypatch: Any,
    ) -> None:
        self.kind = kind
        self._directory = directory
        self._dying = dying
        self._server = server
        self._monkeypatch = monkeypatch
        self._has_key = kind == "sealed" or "encrypted" in kind
        self._sealed_for: Path | None = None
        if kind == "sealed":
            self._sealed_for = directory / "recovery.pub"
            self._held_key = hold_key(key_of_paper(written_on_paper(new_paper(self._sealed_for))))
        self._number = 0
        self._served: dict[StorageLocation, ServedStorage] | None = None

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Let places with ``ssh`` in their kind be reached through a store server in a thread."""
        if "ssh" not in self.kind:
            yield
            return
        opened: dict[StorageLocation, ServedStorage] = {}
        self._served = opened

        def open_(location: StorageLocation) -> ServedStorage:
            if location not in opened:
                directory = Path(location.path.removeprefix(_PIPE))
                opened[location] = served(LocalStorage(directory, DIRECTORY))
            return opened[location]

        self._monkeypatch.setitem(STORAGES, SSH, open_)
        try:
            yield
        finally:
            for storage in opened.values():
                storage.link.close()

    def begin(self) -> AnyPlace:
        """Make an empty place, with a cache of its own."""
        self._number += 1
        directory = self._directory / str(self._number)
        directory.mkdir()
        self._monkeypatch.setenv(cache.VARIABLE, str(directory / "cache"))
        key_file = directory / _KEY if self._has_key else None
        if self._server is not None:
            path = f"{BUCKET}/{secrets.token_hex(8)}"
            location = StorageLocation(
                "s3", path, endpoint=self._server.endpoint, key_file=key_file
            )
        else:
            target = directory / _TARGET
            target.mkdir()
            kind, path = LOCAL, str(target)
            if self._served is not None:
                kind, path = SSH, f"{_PIPE}{target}"
            location = StorageLocation(kind, path, key_file=key_file, sealed_for=self._sealed_for)
        if self._sealed_for is None:
            return AnyPlace(location, directory)
        return AnyPlace(location, directory, replace(location, held_key=self._held_key))

    def copy(self, place: AnyPlace) -> AnyPlace:
        """Make a place that has the same files, and the same key."""
        made = self.begin()
        if (place.directory / _KEY).exists():
            shutil.copy2(place.directory / _KEY, made.directory / _KEY)
        if self._server is None:
            old, new = (each.directory / _TARGET for each in (place, made))
            shutil.copytree(old, new, dirs_exist_ok=True)
            return made
        client = self._client()
        prefix, other = (each.location.path.partition("/")[2] for each in (place, made))
        for page in obstore.list(client, prefix):
            for entry in page:
                obstore.copy(client, entry["path"], entry["path"].replace(prefix, other, 1))
        return made

    def remove(self, place: AnyPlace) -> None:
        """Remove what a place has on this machine."""
        shutil.rmtree(place.directory)

    def die(self, work: str, place: AnyPlace, before: int) -> Died:
        """Let a process work there, and die before its change of that number."""
        location = place.location
        if self.kind.startswith("ssh"):
            location = StorageLocation(SSH, f"{_PIPE}{location.path}")
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", cache.VARIABLE)
        environment = {name: os.environ[name] for name in names if name in os.environ}
        of_server = self.kind == "ssh server"
        death = Death(work, location, place.directory, environment, before, of_server)
        assert self._dying
        return self._dying.play(death)

    def each_death(
        self, work: str, prepare: Callable[[AnyPlace], object], *, all_points: bool
    ) -> Iterator[AnyPlace]:
        """Give the place after each death of some work, each made from the same beginning.

        Args:
            work: a key of ``dying_process.WORKS``.
            prepare: makes what the work begins with.
            all_points: whether it dies at each change, and not at a few of them alone.
        """
        begun = self.begin()
        prepare(begun)
        place = self.copy(begun)
        lived = self.die(work, place, NEVER)
        assert lived.status == 0, f"it failed without having been killed: {lived.error}"
        assert lived.changes > QUICK_POINTS, "it was not counted where it changes something"
        self.remove(place)
        for number in points(lived.changes, all_points=all_points):
            place = self.copy(begun)
            died = self.die(work, place, number)
            assert os.WIFSIGNALED(died.status), f"it was not killed at {number}"
            yield place
            self.remove(place)

    def _client(self) -> obstore.store.S3Store:
        assert self._server
        options: Any = {"allow_http": True}
        config: Any = {"endpoint": self._server.endpoint}
        return obstore.store.S3Store(BUCKET, config=config, client_options=options)


def points(changes: int, *, all_points: bool) -> list[int]:
    """Return the numbers of the changes to die before: of all, or of a few that are far apart."""
    if all_points:
        return list(range(changes))
    return sorted({(2 * at + 1) * changes // (2 * QUICK_POINTS) for at in range(QUICK_POINTS)})
