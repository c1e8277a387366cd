"""A storage that hands all verbs on to another; its subclasses change some of them."""

from collections.abc import Callable, Container, Iterable, Sequence

from virtbackup_async.repository.storage.held_change import change_held
from virtbackup_async.repository.storage.interface import (
    GrowingFile,
    HeldDirectory,
    HiddenFile,
    Kind,
    LeaseFile,
    LeaseLook,
    OpenDirectory,
    Status,
    Storage,
    StoredFile,
)


class WrappedStorage:
    """A storage that is another one.

    Attributes:
        inner: the other one.
    """

    def __init__(self, inner: Storage) -> None:
        self.inner = inner

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.inner == other.inner

    def __hash__(self) -> int:
        return hash(self.inner)

    @property
    def reads_at_once(self) -> int:
        return self.inner.reads_at_once

    def where(self, name: str = "") -> str:
        return self.inner.where(name)

    def names(self, directory: str, kinds: Container[Kind]) -> list[str]:
        return self.inner.names(directory, kinds)

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        return self.inner.sizes(names)

    def status(self, name: str) -> Status:
        return self.inner.status(name)

    def exists(self, name: str) -> bool:
        return self.inner.exists(name)

    def open(self, name: str) -> StoredFile:
        return self.inner.open(name)

    def open_directory(self, name: str) -> OpenDirectory:
        return self.inner.open_directory(name)

    def hold(self, directory: str) -> HeldDirectory | None:
        return self.inner.hold(directory)

    def read(self, name: str, max_bytes: int) -> bytes | None:
        return self.inner.read(name, max_bytes)

    def make_directory(self, name: str) -> None:
        self.inner.make_directory(name)

    def sync_names(self, directory: str) -> None:
        self.inner.sync_names(directory)

    def replace(self, name: str, data: bytes, *, keep_owner: bool = False) -> None:
        self.inner.replace(name, data, keep_owner=keep_owner)

    def change(self, name: str, max_bytes: int, change: Callable[[bytes], bytes]) -> None:
        # By the verbs of this storage: it may refuse one of them, or count what is written.
        change_held(self, name, max_bytes, change)

    def rename(self, name: str, new: str) -> None:
        self.inner.rename(name, new)

    def put_new(self, name: str, data: bytes) -> None:
        self.inner.put_new(name, data)

    def overwrite(self, name: str, data: bytes) -> None:
        self.inner.overwrite(name, data)

    def create(self, name: str) -> GrowingFile:
        return self.inner.create(name)

    def create_hidden(self, name: str) -> HiddenFile:
        return self.inner.create_hidden(name)

    def remove(self, name: str) -> None:
        self.inner.remove(name)

    def take_lease(self, name: str, content: bytes, directories: Sequence[str]) -> LeaseFile:
        return self.inner.take_lease(name, content, directories)

    def remove_lease_if(self, name: str, is_dead: Callable[[LeaseLook], bool]) -> None:
        self.inner.remove_lease_if(name, is_dead)

    def clock(self, directory: str) -> float:
        return self.inner.clock(directory)

    def remove_temporary_files(self, directories: Iterable[str], before_s: float) -> None:
        self.inner.remove_temporary_files(directories, before_s)

    def free_bytes(self) -> int:
        return self.inner.free_bytes()

    def keep_reserve(self) -> None:
        self.inner.keep_reserve()

    def release_reserve(self) -> bool:
        return self.inner.release_reserve()
