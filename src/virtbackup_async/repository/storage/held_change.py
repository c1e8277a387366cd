"""A change of a small file in a directory that its caller holds, so that nobody else changes it."""

from collections.abc import Callable
from contextlib import closing

from virtbackup_async.repository.storage.interface import Storage


def change_held(
    storage: Storage, name: str, max_bytes: int, change: Callable[[bytes], bytes]
) -> None:
    """Read a file and replace it: ``Storage.change`` where directories can be held."""
    parent, _, step = name.rpartition("/")
    with closing(storage.open_directory(parent)) as directory:
        content = directory.read(step, max_bytes)
    storage.replace(name, change(content), keep_owner=True)
