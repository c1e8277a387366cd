"""What a repository needs of the place that its files lie in: the verbs of a storage.

``local.py`` implements them for a directory. A storage holds all files of a target, by names such
as ``.virtbackup-repository/index/1f...-7.index`` or ``web/20260301-021500_3_web_vda.raw.map``:
steps joined by ``/``, none of them empty, ``.`` or ``..``. The suite for every storage is
tests/contract/test_storages.py.

Errors are the same everywhere. What changes files raises ``StorageError`` (``StorageFullError`` if
there is no space). What opens and reads them raises ``FileNotFoundError``, with ``filename`` for
messages, or an ``OSError`` whose number tells a broken file (EIO) from a file that cannot be
reached now (ESTALE, ETIMEDOUT ...).

Invariants. A hidden file is published whole or not at all. A method that says *durable* returns
when a power cut cannot undo it. Time is the storage's own: hosts that share one may differ.
All methods block; any thread may call them.
"""

from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from enum import Enum
from typing import Protocol

from msgspec import Struct


class Kind(Enum):
    """What a name in a directory stands for."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    """A link to a directory or to nowhere: opening what lies behind it is refused."""
    OTHER = "other"


class Status(Struct, frozen=True):
    """What is known of a file without reading it.

    Attributes:
        size_bytes: its length.
        version: differs from that of every other file which had, or will have, the same name.
        is_file: False for whatever else has the name.
    """

    size_bytes: int
    version: Hashable
    is_file: bool


class StoredFile(Protocol):
    """A file that is open for reading; several threads may read. ``close`` it."""

    @property
    def where(self) -> str:
        """What to call it in messages."""

    @property
    def size_bytes(self) -> int: ...

    def read(self, length_bytes: int, offset: int) -> bytes:
        """Return that many bytes.

        Raises:
            CorruptError: the file ends before.
            OSError: they cannot be read.
        """

    def read_up_to(self, length_bytes: int, offset: int) -> bytes:
        """Return that many bytes, or those up to the end of the file. Errors as ``read``."""

    def read_once(self, length_bytes: int, offset: int) -> bytes:
        """Do what ``read`` does; the bytes do not stay in a cache that did not have them before."""

    def close(self) -> None: ...


class GrowingFile(Protocol):
    """A new file whose name others may see while it grows. Not for two threads at once."""

    def append(self, data: bytes) -> None:
        """Append some bytes; after an error nothing that was appended counts as stored."""

    def finish(self) -> None:
        """Make the file and its name durable, and close it."""

    def discard(self) -> None:
        """Close and remove it, finished or not; may be called again after an error."""


class HiddenFile(Protocol):
    """A new file that has no name until it is published. Not for two threads at once."""

    def append(self, data: bytes | bytearray) -> None: ...

    def finish(self) -> None:
        """Make the content durable, and close it."""

    def publish(self, on_named: Callable[[], None]) -> None:
        """Give the finished file its name, durably; nobody else has or takes that name.

        Args:
            on_named: called as soon as the file has its name, or may have it: an error that
                follows does not take the name back.
        """

    def publish_exclusively(self) -> None:
        """Give the finished file its name if it is free; ``sync_names`` makes the name durable."""

    def discard(self) -> None:
        """Close it, and remove it if it has no name; may be called again, and raises nothing."""


class LeaseFile(Protocol):
    """A file that tells others that its holder is alive."""

    @property
    def where(self) -> str: ...

    def refresh(self) -> None:
        """Set its time to now; a failure shows in ``is_held``, if it lasts."""

    def is_held(self) -> bool:
        """Whether the file is still there, and still this one.

        Raises:
            StorageError: a directory was exchanged since the lease was taken.
        """

    def remove(self) -> None:
        """Remove it if it is still held, and let go of it; raises nothing."""


class LeaseLook(Struct, frozen=True):
    """What somebody else sees of a lease.

    Attributes:
        content: its first bytes.
        modified_s: when its holder refreshed it.
        is_locked: True if a process holds it for sure, False if none does on a host that shares
            its locks with this one, None where locks say nothing.
    """

    content: bytes
    modified_s: float
    is_locked: bool | None


class Storage(Protocol):
    """The files of a target. Two that are equal are the same place."""

    def __hash__(self) -> int: ...

    def where(self, name: str = "") -> str:
        """Return what to call a file, or the target itself, in messages."""

    def names(self, directory: str, kinds: Container[Kind]) -> list[str]:
        """Return the last steps of the names in a directory that are of some kinds, sorted.

        Raises:
            FileNotFoundError: there is no such directory; not raised where none are needed.
            StorageError: it cannot be listed.
        """

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Return the lengths in bytes of those that are files; quick for many of a directory.

        Raises:
            StorageError: a directory cannot be read.
        """

    def status(self, name: str) -> Status:
        """Return what is known of a file.

        Raises:
            FileNotFoundError: there is nothing of that name.
            StorageError: that cannot be told.
        """

    def exists(self, name: str) -> bool:
        """Whether there is anything of that name; StorageError if that cannot be told."""

    def open(self, name: str) -> StoredFile: ...

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return the content of a small file, up to a length; None if it is not there.

        Raises:
            StorageError: it cannot be read.
        """

    def make_directory(self, name: str) -> None:
        """Make a directory, durably, if it is not there."""

    def sync_names(self, directory: str) -> None:
        """Make the names in a directory durable."""

    def replace(self, name: str, data: bytes) -> None:
        """Write a whole file, durably: readers see the old content or the new."""

    def put_new(self, name: str, data: bytes) -> None:
        """Write a whole new file, durably.

        Raises:
            FileExistsError: the name is taken, durably.
        """

    def overwrite(self, name: str, data: bytes) -> None:
        """Write over the first bytes of a file, durably; refused if it has other names."""

    def create(self, name: str) -> GrowingFile:
        """Begin a new file, its directory too if there is none."""

    def create_hidden(self, name: str) -> HiddenFile: ...

    def remove(self, name: str) -> None:
        """Remove a file, durably; one that is not there is as good as removed."""

    def take_lease(self, name: str, content: bytes, directories: Sequence[str]) -> LeaseFile:
        """Make a lease: nobody sees it without its content, or before it is held.

        Args:
            name: of the lease.
            content: for others who look at it.
            directories: must not be exchanged while it is held; those not there are left out.

        Raises:
            FileExistsError: somebody has that lease.
        """

    def remove_lease_if(self, name: str, is_dead: Callable[[LeaseLook], bool]) -> None:
        """Look at a lease and remove it, durably, if it is found dead; nobody comes in between.

        Raises:
            OSError: as for reading.
        """

    def clock(self, directory: str) -> float:
        """Return what time it is where the files of a directory are, in seconds.

        Raises:
            OSError: as for reading.
        """

    def remove_temporary_files(self, directories: Iterable[str], before_s: float) -> None:
        """Remove what hidden files and leases of dead processes left, if it is older than that."""

    def free_bytes(self) -> int:
        """Return how much can be written; 0 if no file can be made.

        Raises:
            StorageError: that cannot be told.
        """

    def keep_reserve(self) -> None:
        """Set space aside with which a full target can be cleaned, if there is any; no errors."""

    def release_reserve(self) -> bool:
        """Give that space back; False if there was none."""
