"""A directory of an object store, open for its names and its small files.

Many definitions are read in a row, and each answer takes a while: some requests are under way at
once, and what was copied to this host before is not asked for: the list shows whether it changed.
"""

import errno
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final

from virtbackup_async.errors import StorageError
from virtbackup_async.files.reached_path import UnfitFileError
from virtbackup_async.model.amounts import size
from virtbackup_async.repository.storage.objects.answers import Meta, tag_of
from virtbackup_async.repository.storage.objects.cache import Cache
from virtbackup_async.repository.storage.objects.calls import ObjectCalls

READS_AT_ONCE: Final = 16


class ObjectDirectory:
    """An ``OpenDirectory``: the objects whose names begin with its name."""

    def __init__(
        self,
        calls: ObjectCalls,
        cache: Cache,
        name: str,
        where: str,
        listed: tuple[Mapping[str, Meta], Sequence[str]],
    ) -> None:
        self._calls = calls
        self._cache = cache
        self._name = name
        self._where = where
        self._files, directories = listed
        self._names = frozenset([*self._files, *directories])

    def names(self) -> frozenset[str]:
        return self._names

    def read(self, name: str, max_bytes: int) -> bytes:
        full = f"{self._name}/{name}" if self._name else name
        listed = self._files.get(name)
        tag = "" if listed is None else tag_of(listed)
        copied = self._cache.read(full, tag) if tag else None
        if copied is not None and len(copied) <= max_bytes:
            return copied
        return self._read(name, full, max_bytes, tag)

    def _read(self, name: str, full: str, max_bytes: int, tag: str) -> bytes:
        where = f"{self._where}/{name}"
        found = self._calls.get(full, max_bytes)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", where)
        if found.meta.size_bytes > max_bytes:
            raise UnfitFileError(errno.EFBIG, f"larger than {size(max_bytes)}", where)
        if tag_of(found.meta) == tag:
            self._cache.write(full, tag, found.data, found.meta)
        return found.data

    def read_each(
        self, names: Iterable[str], max_bytes: int
    ) -> Iterator[tuple[str, bytes | OSError]]:
        coming = iter(names)
        under_way: deque[tuple[str, Future[bytes]]] = deque()
        threads = ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="read")
        try:
            while True:
                for name in islice(coming, READS_AT_ONCE - len(under_way)):
                    under_way.append((name, threads.submit(self.read, name, max_bytes)))
                if not under_way:
                    return
                name, future = under_way.popleft()
                yield name, self._outcome(future)
        finally:
            threads.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Nothing is open."""

    def _outcome(self, future: Future[bytes]) -> bytes | OSError:
        try:
            return future.result()
        except OSError as error:
            return error
        except StorageError as error:
            # Of one file this says nothing about the others; of the store it ends the reading.
            self._calls.list_directory(self._name)
            return OSError(errno.EIO, error.message)


class NothingHeld:
    """A ``HeldDirectory`` of a storage without locks."""

    def close(self) -> None:
        """Nothing is held."""
