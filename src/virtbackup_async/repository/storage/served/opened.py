"""What a client has open at the server, by the handles that stand for it."""

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from threading import Lock
from typing import Generic, TypeVar

from virtbackup_async.errors import StorageError
from virtbackup_async.repository.storage.interface import (
    GrowingFile,
    HeldDirectory,
    HiddenFile,
    LeaseFile,
    OpenDirectory,
    StoredFile,
)

T = TypeVar("T")
F = TypeVar("F", GrowingFile, HiddenFile)


class Reading:
    """A file that is open for reading."""

    def __init__(self, file: StoredFile) -> None:
        self.file = file

    def close(self) -> None:
        self.file.close()


class Listing:
    """An open directory."""

    def __init__(self, directory: OpenDirectory) -> None:
        self.directory = directory

    def close(self) -> None:
        self.directory.close()


class Holding:
    """A directory that is held, which is released."""

    def __init__(self, held: HeldDirectory) -> None:
        self._held = held

    def close(self) -> None:
        self._held.close()


class Written(Generic[F]):
    """A file that is being written, which is discarded unless it was finished or published."""

    def __init__(self, file: F) -> None:
        self.file: F = file
        self._is_broken = False
        self._is_finished = False

    def append(self, data: bytes | bytearray) -> None:
        """Append some bytes; once that has failed, the file takes no more.

        A client sends the next bytes before it knows: they would follow a gap.
        """
        self._check()
        try:
            self.file.append(data)
        except BaseException:
            self._is_broken = True
            raise

    def finish(self) -> None:
        self._check()
        self.file.finish()
        self._is_finished = True

    def close(self) -> None:
        if not self._is_finished:
            self.file.discard()

    def _check(self) -> None:
        if self._is_broken:
            raise StorageError("the bytes before these could not be written")


class Growing(Written[GrowingFile]):
    """A growing file."""


class Hidden(Written[HiddenFile]):
    """A hidden file, which is discarded unless it was published."""

    def close(self) -> None:
        self.file.discard()


class Leased:
    """A lease, which is removed."""

    def __init__(self, file: LeaseFile) -> None:
        self.file = file

    def close(self) -> None:
        self.file.remove()


Thing = Reading | Listing | Holding | Growing | Hidden | Leased
A = TypeVar("A", bound=Thing)


class OpenThings:
    """All that one client has open; any thread may use it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._things: dict[int, Thing] = {}
        self._numbers = count(1)
        self._turn = Lock()

    def add(self, open_: Callable[[], A]) -> tuple[int, A]:
        """Open something, and return its handle.

        Raises:
            StorageError: too much is open.
        """
        number = next(self._numbers)
        with self._turn:
            if len(self._things) >= self._most:
                raise StorageError(f"more than {self._most} files are open on one connection")
        thing = open_()
        with self._turn:
            self._things[number] = thing
        return number, thing

    def get(self, handle: int, kind: type[T]) -> T:
        """Return what is open by a handle.

        Raises:
            StorageError: nothing of that kind is.
        """
        with self._turn:
            thing = self._things.get(handle)
        if not isinstance(thing, kind):
            raise StorageError("nothing of that kind is open by that handle")
        return thing

    def close(self, handle: int) -> None:
        """Close what is open by a handle; nothing is no error."""
        with self._turn:
            thing = self._things.pop(handle, None)
        if thing is not None:
            thing.close()

    def close_all(self) -> None:
        """Close all of it; errors of one do not keep the others open."""
        for handle in list(self._things):
            with suppress(Exception):
                self.close(handle)
