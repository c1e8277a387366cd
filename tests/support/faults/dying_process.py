"""Processes that work in a repository on any storage, and die at one of their changes.

As a program, it is a process with all modules loaded and no threads: for each line of JSON on its
standard input, a ``Death``, it forks one that works, and prints a ``Died``. What dies, dies by
SIGKILL, with its connections and locks. A change is

- in an object store, a request that writes or removes;
- on a store server, a message that changes something. The server is a process of its own, which
  lives on, and discards what the client had open;
- in a directory, a call of ``os`` that changes something. On a store server, the server can be what
  dies there: the client goes on with another one.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, Final

import anyio
import msgspec

from fakes.any_place import AnyPlace
from fakes.sudden_death import die_before
from virtbackup_async.model.storage_location import LOCAL, SSH, StorageLocation
from virtbackup_async.repository.prune import prune as pruning
from virtbackup_async.repository.storage import encrypted
from virtbackup_async.repository.storage.layout import DIRECTORY
from virtbackup_async.repository.storage.local import LocalStorage
from virtbackup_async.repository.storage.objects import connecting, requests
from virtbackup_async.repository.storage.repository_file import STORAGES
from virtbackup_async.repository.storage.served import messages as m
from virtbackup_async.repository.storage.served.channel import Channel
from virtbackup_async.repository.storage.served.connection import Connection
from virtbackup_async.repository.storage.served.link import Link
from virtbackup_async.repository.storage.served.session import serve
from virtbackup_async.repository.storage.served.storage import ServedStorage

OLD, NEW, BIG = (1, 2, 3), (2, 0, 4, 5), tuple(range(1, 9))
MERGED: Final = 3
NEVER: Final = 1 << 30
_SERVERS: Final = 4
# Loaded before anything is forked, although this module calls nothing of them.
LOADED: Final = (connecting, encrypted)
_CHANGES: Final = (
    m.MakeDirectory, m.SyncNames, m.Replace, m.Rename, m.PutNew, m.Overwrite, m.Create,
    m.CreateHidden, m.Remove, m.TakeLease, m.Append, m.Finish, m.Publish, m.PublishExclusively,
    m.Discard, m.Decision,
)  # fmt: skip


class Death(msgspec.Struct):
    """What a process does, and where it dies.

    Attributes:
        work: a key of ``WORKS``.
        location: where the repository is.
        directory: for images.
        environment: variables to set.
        before: the number of the change that does not happen any more.
        of_server: whether the store server is what dies.
    """

    work: str
    location: StorageLocation
    directory: Path
    environment: dict[str, str]
    before: int
    of_server: bool = False


class Died(msgspec.Struct):
    """What came of it.

    Attributes:
        status: of the process, as ``waitpid`` has it.
        changes: how many there were, if it lived to its end; else 0.
        error: the traceback, if it failed by itself.
    """

    status: int
    changes: int
    error: str


def back_up(place: AnyPlace) -> None:
    place.make()
    anyio.run(place.back_up, "new", NEW)


def merge(place: AnyPlace) -> None:
    pruning.MAX_SEGMENTS = MERGED - 1  # type: ignore[misc]
    place.prune()


WORKS: Final[dict[str, Callable[[AnyPlace], object]]] = {
    "back up": back_up,
    "prune": AnyPlace.prune,
    "merge": merge,
    "repair": AnyPlace.repair,
}


class _Changes:
    """Counts changes, and kills this process before one of them."""

    def __init__(self, number: int) -> None:
        self._left = self._number = number
        self._turn = Lock()

    def next(self) -> None:
        with self._turn:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1

    def count(self) -> int:
        return self._number - self._left

    def watch_requests(self) -> None:
        run = requests.Requests.run

        def watched(sender: Any, request: requests.Request, call: Any) -> Any:
            if request.verb in {"put", "delete"}:
                self.next()
            return run(sender, request, call)

        requests.Requests.run = watched  # type: ignore[assignment, method-assign]

    def watch_messages(self) -> None:
        send = Channel.send

        def watched(channel: Channel, message: m.Message) -> None:
            if isinstance(message, _CHANGES):
                self.next()
            send(channel, message)

        Channel.send = watched  # type: ignore[assignment, method-assign]


class _Server:
    """A store server that was forked, as its client has it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def end(self) -> None:
        self.channel.close_output(10)


class _Forked:
    """The servers of a client: the first of them may die, and each has another connection."""

    def __init__(self, directory: Path, dies_before: int, counted: Path | None) -> None:
        self.pids: list[int] = []
        self._ends: list[tuple[int, int]] = []
        for number in range(_SERVERS):
            theirs_in, ours_out = os.pipe()
            ours_in, theirs_out = os.pipe()
            pid = os.fork()
            if pid == 0:
                for fd in (ours_out, ours_in, *(fd for ends in self._ends for fd in ends)):
                    os.close(fd)
                is_first = number == 0
                _serve(
                    LocalStorage(directory, DIRECTORY), Channel(theirs_in, theirs_out),
                    dies_before if is_first else NEVER, counted if is_first else None,
                )  # fmt: skip
            os.close(theirs_in)
            os.close(theirs_out)
            self.pids.append(pid)
            self._ends.append((ours_in, ours_out))

    def connect(self) -> Connection:
        return Connection(_Server(Channel(*self._ends.pop(0))))

    def let_go(self) -> None:
        for ends in self._ends:
            for fd in ends:
                os.close(fd)


def _serve(storage: LocalStorage, channel: Channel, dies_before: int, counted: Path | None) -> None:
    status = 1
    try:
        changes = die_before(dies_before)
        serve(storage, channel)
        if counted is not None:
            counted.write_text(str(changes()))
        status = 0
    finally:
        os._exit(status)


def _work(death: Death, forked: _Forked | None) -> int:
    """Do the work in this process; return the number of changes."""
    changes = _Changes(death.before)
    found = changes.count
    if forked is not None:
        link = Link(forked.connect, str(death.location), pauses_s=(0, 0, 0))
        storage = ServedStorage(death.location, link)
        STORAGES[SSH] = lambda _at: storage
        if not death.of_server:
            changes.watch_messages()
    elif death.location.kind == LOCAL:
        found = die_before(death.before)
    else:
        changes.watch_requests()
    WORKS[death.work](AnyPlace(death.location, death.directory))
    return found()


def play(death: Death) -> Died:
    """Fork a process that works, and wait for it and for its servers."""
    os.environ.update(death.environment)
    counted = death.directory / "changes"
    failed = death.directory / "failed"
    for path in (counted, failed):
        path.unlink(missing_ok=True)
    forked = None
    if death.location.kind == SSH:
        directory = Path(f"/{death.location.path.partition('/')[2]}")
        if death.of_server:
            forked = _Forked(directory, death.before, counted)
        else:
            forked = _Forked(directory, NEVER, None)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            changes = _work(death, forked)
            if not death.of_server:
                counted.write_text(str(changes))
            status = 0
        except BaseException:  # noqa: BLE001 -- it is shown, and the process ends
            failed.write_text(traceback.format_exc())
        finally:
            os._exit(status)
    if forked is not None:
        forked.let_go()
    _, status = os.waitpid(pid, 0)
    for server in [] if forked is None else forked.pids:
        _, of_server = os.waitpid(server, 0)
        if death.of_server and of_server:
            status = of_server
    changes = int(counted.read_text()) if counted.exists() else 0
    return Died(status, changes, failed.read_text() if failed.exists() else "")


def deaths() -> Iterator[Death]:
    """Yield what standard input asks for."""
    for line in sys.stdin:
        yield msgspec.json.decode(line, type=Death, dec_hook=lambda kind, text: kind(text))


def main() -> None:
    """Play each death, and print what came of it."""
    for death in deaths():
        sys.stdout.write(msgspec.json.encode(play(death)).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
