"""The storage of a target's files, as the catalog and a repository need it.

``local.py`` implements it for a directory, ``objects/`` for an object store. A storage holds
all files of a target, under names such as ``.virtbackup-repository/index/1f...-7.index`` or
``web/20260301-021500_3_web_vda.raw.map``: steps joined by ``/``, none of which is empty, ``.`` or
``..``. tests/contract/test_storages.py is the suite for every storage. Where storages differ in
more than speed, the methods say so.

Errors are the same everywhere. Methods that change files raise ``StorageError``, or
``StorageFullError`` if there is no space. Methods that open and read files raise
``FileNotFoundError``, with ``filename`` for messages, or an ``OSError``. The error number
distinguishes a broken file (EIO) from one that cannot be reached now (ESTALE, ETIMEDOUT ...).

Invariants: A hidden file is published completely or not at all. A method that is *durable* returns
when a power cut cannot undo its result. Time is the storage's own: hosts that share one may differ.
All methods block; any thread may call them.
"""

from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

LEASE_EXPIRY_S: Final = 3600.0


class Kind(Enum):
    """The kinds of things that a name in a directory can stand for."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    """A link to a directory; the storage refuses to open anything through it."""
    LOST_LINK = "lost link"
    """A link to nowhere."""
    OTHER = "other"


class Status(Struct, frozen=True):
    """The facts about a file that are known without reading it.

    Attributes:
        size_bytes: its length.
        version: differs from the version of every other file that had, or will have, the name.
        is_file: False if something else has the name.
        modified_s: when the content was stored, by the storage's time; 0 if that is not known.
    """

    size_bytes: int
    version: Hashable
    is_file: bool
    modified_s: float = 0.0


class StoredFile(Protocol):
    """A file that is open for reading; several threads may read. ``close`` it."""

    @property
    def where(self) -> str:
        """The name of the file in messages."""

    @property
    def size_bytes(self) -> int: ...

    def read(self, length_bytes: int, offset: int) -> bytes:
        """Return that many bytes.

        Raises:
            CorruptError: the file ends before that.
            OSError: they cannot be read.
        """

    def read_up_to(self, length_bytes: int, offset: int) -> bytes:
        """Return that many bytes, or fewer at the end of the file; raises as ``read``."""

    def read_once(self, length_bytes: int, offset: int) -> bytes | memoryview:
        """Do the same as ``read``, but leave no bytes in a cache that did not have them before.

        For parts of some MiB: they are read by one request, and not copied if that can be avoided.
        """

    def close(self) -> None: ...


class OpenDirectory(Protocol):
    """A directory that is open for its names and its small files; ``close`` it."""

    def names(self) -> frozenset[str]:
        """Return the last steps of all names in it, of whatever kind.

        Raises:
            OSError: they cannot be listed.
        """

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return the content of a small file.

        Args:
            name: its last step.
            max_bytes: the greatest length that it may have.

        Raises:
            FileNotFoundError: it is missing.
            UnfitFileError: it is not a regular file, or longer.
            OSError: it cannot be read.
        """

    def read_each(
        self, names: Iterable[str], max_bytes: int
    ) -> Iterator[tuple[str, bytes | OSError]]:
        """Yield each name with what ``read`` returns or raises for it, in this order.

        A storage that takes long to answer reads several of them at once.
        """

    def close(self) -> None: ...


class HeldDirectory(Protocol):
    """A directory that is held for changes; ``close`` it to release it."""

    def close(self) -> None: ...


class GrowingFile(Protocol):
    """A new file whose name others may see while it grows. Not for two threads at once."""

    def append(self, data: bytes | bytearray) -> None:
        """Append some bytes; after an error, none of the appended bytes count as stored."""

    def finish_soon(self) -> None:
        """Begin to finish a file that is complete; ``finish`` waits for it, and reports errors.

        Blocks as long as the storage has no room for more files on their way.
        """

    def finish(self) -> None:
        """Make the file and its name durable, and close it.

        Raises:
            StorageError: it is not durable, or another file took its name meanwhile.
        """

    def discard(self) -> None:
        """Close and remove it, finished or not; can be called again after an error."""


class HiddenFile(Protocol):
    """A new file that has no name until it is published. Not for two threads at once."""

    def append(self, data: bytes | bytearray) -> None: ...

    def finish(self) -> None:
        """Make the content durable, and close it."""

    def publish(self, on_named: Callable[[], None]) -> None:
        """Give the finished file its name, durably; nobody else has or takes that name.

        Args:
            on_named: called as soon as the file has its name, or might have it: a later error
                does not take the name back.
        """

    def publish_exclusively(self) -> None:
        """Give the finished file its name if it is free; ``sync_names`` makes the name durable.

        Raises:
            StorageError: caused by a FileExistsError if the name is taken; after any other cause
                the file may have it.
        """

    def discard(self) -> None:
        """Close it, and remove it if it has no name; can be called again, and raises nothing."""


class LeaseFile(Protocol):
    """A file that shows others that its holder is alive."""

    @property
    def where(self) -> str: ...

    def refresh(self) -> None:
        """Set its time to now; a lasting failure shows in ``is_held``."""

    def is_held(self) -> bool:
        """Return whether the file still exists, and is still this one.

        Raises:
            StorageError: a directory was exchanged since the lease was taken.
        """

    def remove(self) -> None:
        """Remove it if it is still held, and give it up; raises nothing."""


class LeaseLook(Struct, frozen=True):
    """A lease as other processes see it.

    Attributes:
        content: its first bytes.
        modified_s: when its holder refreshed it.
        is_locked: True if a process certainly holds it, False if no process does on a host that
            shares its locks with this one, None where locks prove nothing.
        expiry_s: a lease that was not refreshed for so long belongs to a dead holder.
    """

    content: bytes
    modified_s: float
    is_locked: bool | None
    expiry_s: float = LEASE_EXPIRY_S


class Storage(Protocol):
    """The files of a target. Equal storages are at the same location."""

    def __hash__(self) -> int: ...

    @property
    def reads_at_once(self) -> int:
        """How many reads should be under way at once: more than 1 where each waits for an answer.

        So many MiB are read ahead there; elsewhere, the kernel reads ahead.
        """

    def where(self, name: str = "") -> str:
        """Return the name of a file, or of the target itself, in messages."""

    def names(self, directory: str, kinds: Container[Kind]) -> list[str]:
        """Return the last steps of a directory's names, sorted; only those of some kinds.

        Raises:
            FileNotFoundError: there is no such directory, and the storage needs directories.
            StorageError: it cannot be listed.
        """

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Return the lengths in bytes of the names that are files; quick for a whole directory.

        Raises:
            StorageError: a directory cannot be read.
        """

    def status(self, name: str) -> Status:
        """Return the status of a file.

        Raises:
            FileNotFoundError: nothing has that name.
            StorageError: the storage cannot find out.
        """

    def exists(self, name: str) -> bool:
        """Return whether anything has that name; StorageError if the storage cannot find out."""

    def open(self, name: str) -> StoredFile: ...

    def open_directory(self, name: str) -> OpenDirectory:
        """Open a directory.

        Raises:
            FileNotFoundError: it is missing, and the storage needs directories.
            OSError: it cannot be opened.
        """

    def hold(self, directory: str) -> HeldDirectory | None:
        """Hold a directory, so that nobody else changes files of it by the same rule.

        Returns:
            None if another process holds it. Where a storage has no locks, nobody holds anything:
            the result is as for a free directory, and ``change`` alone keeps all changes.

        Raises:
            StorageError: it cannot be opened, or this host may not change it.
        """

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return the content of a small file, up to a length; None if it is missing.

        Raises:
            StorageError: it cannot be read.
        """

    def make_directory(self, name: str) -> None:
        """Make a directory, durably, if it is missing."""

    def sync_names(self, directory: str) -> None:
        """Make the names in a directory durable."""

    def replace(self, name: str, data: bytes, *, keep_owner: bool = False) -> None:
        """Write a complete file, durably: readers see the old content or the new.

        Args:
            name: of the file.
            data: its content.
            keep_owner: where files have owners, leave the file its own, and its mode.
        """

    def change(self, name: str, max_bytes: int, change: Callable[[bytes], bytes]) -> None:
        """Replace a small file by what ``change`` makes of its content, durably.

        No other change by this rule is lost: the caller holds the directory; a storage without
        locks writes only if the file is still the one that was read, and begins again if not. So
        ``change`` may be called more than once. Owner and mode stay, where files have them.

        Args:
            name: of the file.
            max_bytes: the greatest length that it may have.
            change: returns the new content; what it raises ends the change.

        Raises:
            FileNotFoundError: it is missing.
            UnfitFileError: it is not a regular file, or longer.
            OSError: it cannot be read.
            StorageError: it cannot be written, or others changed it all the time.
        """

    def rename(self, name: str, new: str) -> None:
        """Rename a file in its directory, durably, and replace a file of that name.

        The new name is complete before the old one goes. Where a storage cannot do that in one
        step, a process that dies leaves both.

        Args:
            name: of the file.
            new: the last step of its new name.

        Raises:
            StorageError: it is missing, or cannot be renamed.
        """

    def put_new(self, name: str, data: bytes) -> None:
        """Write a complete new file, durably.

        Raises:
            FileExistsError: the name is taken, durably.
        """

    def overwrite(self, name: str, data: bytes) -> None:
        """Overwrite the first bytes of a file, durably; refused if the file has other names."""

    def create(self, name: str) -> GrowingFile:
        """Begin a new file, and make its directory if that is missing."""

    def create_hidden(self, name: str) -> HiddenFile: ...

    def remove(self, name: str) -> None:
        """Remove a file, durably; a missing one counts as removed."""

    def take_lease(self, name: str, content: bytes, directories: Sequence[str]) -> LeaseFile:
        """Take a lease: nobody sees it without its content, or before it is held.

        Args:
            name: of the lease.
            content: for other processes that look at it.
            directories: must not be exchanged while it is held; missing ones are ignored.

        Raises:
            FileExistsError: another process has that lease.
        """

    def remove_lease_if(self, name: str, is_dead: Callable[[LeaseLook], bool]) -> None:
        """Look at a lease, and remove it, durably, if it is dead; both are one step for others.

        Raises:
            OSError: as for reading.
        """

    def clock(self, directory: str) -> float:
        """Return the storage's time for the files of a directory, in seconds.

        Raises:
            OSError: as for reading.
        """

    def remove_temporary_files(self, directories: Iterable[str], before_s: float) -> None:
        """Remove files that dead processes left of hidden files and leases, if they are older."""

    def free_bytes(self) -> int:
        """Return how many bytes can be written; 0 if no file can be made.

        Raises:
            StorageError: the storage cannot find out.
        """

    def keep_reserve(self) -> None:
        """Reserve some space, so that a full target can be cleaned, if there is any; no errors."""

    def release_reserve(self) -> bool:
        """Release that space; return False if none was reserved."""


@runtime_checkable
class Probing(Protocol):
    """A storage of which it is not certain that it keeps the promises of ``Storage``."""

    def probe(self) -> list[str]:
        """Try them, with files that are removed again.

        Returns:
            A sentence, without its subject, for each one that is not kept.


        Raises:
            StorageError: the storage cannot be used at all.
        """


@runtime_checkable
class Copying(Protocol):
    """A ``Storage`` that keeps copies of files on this host."""

    def reading_anew(self) -> AbstractContextManager[None]:
        """Use no copy of the index in the block: it can be good where the file is damaged."""


@runtime_checkable
class PartlyReadable(Protocol):
    """A ``Storage`` whose files can be damaged in parts: what it opens is not what it stores."""

    def open_stored(self, name: str) -> StoredFile:
        """Open a file as it is stored, damaged or not. Blocks.

        Raises:
            FileNotFoundError: there is none.
            StorageError: it cannot be opened.
        """

    def readable_parts(self, name: str) -> Iterator[tuple[int, bytes]]:
        """Yield what can be read of a damaged file, in order: offsets and contents. Blocks.

        Raises:
            FileNotFoundError: there is none.
            StorageError: it cannot be read.
        """
