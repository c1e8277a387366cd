"""Calls of an object store: tried again where that is safe, within a bounded time, and counted.

::

    read, list, delete, overwrite     tried again until the store has been gone for too long
    create                            after any error the object is read back, and compared:
                                        it is this one       the call succeeded, its answer was lost
                                        it is another one    the name is taken
                                        there is none        the call is tried again
    any write                         its length is looked at afterwards: an answer can lie

All calls block; any thread may make them.
"""

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, Final, TypeVar

import obstore

from virtbackup_async.errors import StorageError
from virtbackup_async.repository.storage.objects.answers import (
    COMPARED_BYTES,
    Found,
    Meta,
    Range,
    first_bytes,
    has_content,
    is_marker,
    last_step,
    meta_of,
    plain_tag,
    write_into,
)
from virtbackup_async.repository.storage.objects.failures import Failure, Outcome
from virtbackup_async.repository.storage.objects.requests import (
    PASSING,
    Answer,
    CallFailedError,
    Client,
    Connection,
    LyingError,
    Patience,
    Request,
    Requests,
)

T = TypeVar("T")
_PAGE: Final = 1000
_OF_A_RANGE: Final = frozenset({Outcome.CHANGED, Outcome.EMPTY_RANGE})
_EXISTS: Final = (errno.EEXIST, "File exists")


class ObjectCalls:
    """The calls of one storage.

    Attributes:
        traffic: counts them.
        can_create: False if the store is known to lack calls that depend on a condition.
    """

    def __init__(
        self, connection: Connection, where: Callable[[str], str], patience: Patience
    ) -> None:
        self.can_create = True
        self._requests = Requests(connection, where, patience)
        self.traffic = self._requests.traffic
        self._where = where

    def head(self, name: str) -> Meta | None:
        """Return the facts about an object; None if there is none.

        Raises:
            StorageError: the store cannot be asked.
        """
        return self._unless_missing(
            lambda: self._requests.run(
                Request("head", name, "read"), lambda c: meta_of(obstore.head(c, name))
            )
        )

    def get(self, name: str, max_bytes: int) -> Found | None:
        """Return an object up to a length; None if there is none.

        Raises:
            StorageError: it cannot be read.
        """

        def call(client: Client) -> Found:
            result = obstore.get(client, name)
            meta = meta_of(result.meta)
            data = first_bytes(result, min(max_bytes, meta.size_bytes))
            self.traffic.note("get", name, requests=0, received=len(data))
            return Found(data, meta)

        return self._unless_missing(lambda: self._requests.run(Request("get", name, "read"), call))

    def download(self, name: str, file: BinaryIO) -> Meta | None:
        """Write an object into a local file, from its start; None if there is no such object.

        Raises:
            StorageError: it cannot be read.
            LocalWriteError: the local file cannot be written.
        """

        def call(client: Client) -> Meta:
            result = obstore.get(client, name)
            meta = meta_of(result.meta)
            received = write_into(file, result)
            self.traffic.note("get", name, requests=0, received=received)
            if received != meta.size_bytes:
                raise LyingError
            return meta

        return self._unless_missing(lambda: self._requests.run(Request("get", name, "read"), call))

    def get_range(self, name: str, offset: int, length: int, e_tag: str | None) -> Range | None:
        """Return a range of an object, shorter at its end; None if there is no such object.

        Args:
            name: of the object.
            offset: where the range begins.
            length: of the range, at least 1.
            e_tag: of the object that is meant; None for any.

        Raises:
            CallFailedError: the object is another one by now, or ends before the range.
            StorageError: it cannot be read.
        """
        options: dict[str, Any] = {"range": (offset, offset + length)}
        if e_tag is not None:
            options["if_match"] = e_tag

        def call(client: Client) -> Range:
            result = obstore.get(client, name, options=options)  # type: ignore[arg-type]
            meta = meta_of(result.meta)
            data = memoryview(result.bytes())
            if len(data) != min(length, meta.size_bytes - offset):
                raise LyingError
            self.traffic.note("get", name, requests=0, received=len(data))
            return Range(data, meta)

        return self._unless_missing(
            lambda: self._requests.run(Request("get", name, "read"), call), _OF_A_RANGE
        )

    def put_new(self, name: str, parts: Sequence[bytes]) -> Meta:
        """Create an object in one request, and return the facts about it.

        Raises:
            FileExistsError: another one has the name.
            StorageError: it was not created, as far as can be found out.
        """
        until = self._requests.deadline()
        for pause_s in self._requests.pauses():
            try:
                return self._create(name, parts)
            except CallFailedError as failed:
                failure = failed.failure
            found = self._read_back(name, parts, failure)
            if isinstance(found, Meta):
                return found
            if failure.outcome not in {Outcome.PASSING, Outcome.TAKEN, Outcome.CHANGED}:
                raise failure.error
            if time.monotonic() + pause_s > until:
                raise failure.error
            time.sleep(pause_s)
        raise AssertionError  # pauses never end

    def put(self, name: str, parts: Sequence[bytes]) -> Meta:
        """Write an object, in one request, in the place of any other; return the facts about it.

        Raises:
            StorageError: it cannot be written; the old one or the new one is there.
        """
        size_bytes = sum(map(len, parts))
        return self._overwrite(name, size_bytes, lambda c: self._put(c, name, parts, None))

    def put_large(self, name: str, file: Answer, size_bytes: int) -> Meta:
        """Write an object from an open file, in several requests; raises as ``put``."""

        def call(client: Client) -> Meta:
            file.seek(0)
            obstore.put(client, name, file, use_multipart=True, max_concurrency=4)
            return self._confirmed(client, name, size_bytes)

        return self._overwrite(name, size_bytes, call)

    def put_if(self, name: str, data: bytes, e_tag: str | None) -> Meta | None:
        """Overwrite an object if it is still this one; None if it is not.

        A store that has no such call overwrites any.

        Args:
            name: of the object.
            data: that no other object of the name ever has.
            e_tag: of the object to overwrite.

        Raises:
            StorageError: it cannot be written.
        """
        until = self._requests.deadline()
        for pause_s in self._requests.pauses():
            if not self.can_create or e_tag is None:
                break
            try:
                return self._put_once_if(name, data, e_tag)
            except CallFailedError as failed:
                failure = failed.failure
            if failure.outcome is Outcome.UNKNOWN_WAY:
                self.can_create = False
                continue
            # The answer to a try may be lost, or another call was under way.
            found = self.get(name, COMPARED_BYTES)
            if found is not None and has_content(found, [data]):
                return found.meta
            if found is None or found.meta.e_tag != e_tag:
                return None
            if time.monotonic() + pause_s > until:
                raise failure.error
            time.sleep(pause_s)
        return self.put(name, [data])

    def delete(self, name: str) -> None:
        """Remove an object; a missing one counts as removed.

        Raises:
            StorageError: it cannot be removed.
        """

        def call(client: Client) -> None:
            obstore.delete(client, name)
            self.traffic.note("head", name)
            with suppress(FileNotFoundError):
                obstore.head(client, name)
                raise LyingError

        try:
            self._requests.run(Request("delete", name, "remove"), call)
        except CallFailedError as failed:
            if failed.failure.outcome is not Outcome.MISSING:
                raise failed.failure.error from failed

    def list_directory(self, name: str) -> tuple[dict[str, Meta], list[str]]:
        """Return the objects right below a name, and the last steps that have more below them.

        Raises:
            StorageError: the store cannot be asked.
        """

        def call(client: Client) -> tuple[dict[str, Meta], list[str]]:
            found = obstore.list_with_delimiter(client, name or None)
            pages = (len(found["objects"]) + len(found["common_prefixes"])) // _PAGE
            self.traffic.note("list", name, requests=pages)
            objects = [entry for entry in found["objects"] if not is_marker(entry)]
            files = {last_step(str(entry["path"])): meta_of(entry) for entry in objects}
            return files, [last_step(prefix) for prefix in found["common_prefixes"]]

        return self._answered("list", name, call)

    def list_below(self, name: str, after: str | None = None) -> Iterator[tuple[str, Meta]]:
        """Yield all objects below a directory, in pages: their names, and the facts about them.

        Args:
            name: of the directory.
            after: only names that come later.

        Raises:
            StorageError: the store cannot be asked.
        """
        seen: set[str] = set()
        stream: Iterator[Sequence[Any]] | None = None

        def next_page(client: Client) -> Sequence[Any] | None:
            nonlocal stream
            if stream is None:
                stream = iter(obstore.list(client, name or None, offset=after, chunk_size=_PAGE))
            try:
                return next(stream, None)
            except BaseException:
                stream = None  # begun anew by the next try, which leaves out what was seen
                raise

        while (page := self._answered("list", name, next_page)) is not None:
            for entry in page:
                path = str(entry["path"])
                if path not in seen and not is_marker(entry):
                    seen.add(path)
                    yield path, meta_of(entry)

    def _create(self, name: str, parts: Sequence[bytes]) -> Meta:
        """Try once to create an object."""
        mode = "create" if self.can_create else None
        try:
            if mode is None:
                self._refuse_taken(name)
            size_bytes = sum(map(len, parts))
            call = partial(self._put, name=name, parts=parts, mode=mode)
            request = Request("put", name, "write", size_bytes, is_only_try=True)
            return self._requests.run(request, call)
        except CallFailedError as failed:
            if failed.failure.outcome is not Outcome.UNKNOWN_WAY or mode is None:
                raise
            self.can_create = False
            return self._create(name, parts)

    def _refuse_taken(self, name: str) -> None:
        if self.head(name) is not None:
            raise CallFailedError(_taken(self._where(name)))

    def _read_back(self, name: str, parts: Sequence[bytes], failure: Failure) -> Meta | None:
        """Return the facts about an object that this call created; None if there is none.

        Raises:
            FileExistsError: it is another one.
            StorageError: the failure of the call, if nothing can be found out.
        """
        try:
            found = self.get(name, COMPARED_BYTES)
        except StorageError as error:
            raise failure.error from error
        if found is None:
            return None
        if has_content(found, parts):
            return found.meta
        raise FileExistsError(*_EXISTS, self._where(name))

    def _overwrite(self, name: str, size_bytes: int, call: Callable[[Client], Meta]) -> Meta:
        try:
            return self._requests.run(Request("put", name, "write", size_bytes), call)
        except CallFailedError as failed:
            raise failed.failure.error from failed

    def _put_once_if(self, name: str, data: bytes, e_tag: str) -> Meta:
        request = Request("put", name, "write", len(data), passing=PASSING)
        mode = {"e_tag": e_tag}
        return self._requests.run(request, lambda c: self._put(c, name, [data], mode))

    def _put(self, client: Client, name: str, parts: Sequence[bytes], mode: Answer) -> Meta:
        length = sum(map(len, parts))
        self.traffic.note("put", name, requests=0, sent=length)
        answer = obstore.put(client, name, parts, mode=mode, use_multipart=False)
        meta = self._confirmed(client, name, length)
        if plain_tag(meta.e_tag) != plain_tag(answer["e_tag"]):
            # Either another object has the name, or the store's tags are not comparable.
            found = self.get(name, COMPARED_BYTES)
            if found is None or not has_content(found, parts):
                raise LyingError
        return meta

    def _confirmed(self, client: Client, name: str, length: int) -> Meta:
        """Check that an object that was written is there."""
        self.traffic.note("head", name)
        try:
            meta = meta_of(obstore.head(client, name))
        except FileNotFoundError as error:
            raise LyingError from error
        if meta.size_bytes != length:
            raise LyingError
        return meta

    def _answered(self, verb: str, name: str, call: Callable[[Client], T]) -> T:
        try:
            return self._requests.run(Request(verb, name, "list"), call)
        except CallFailedError as failed:
            raise failed.failure.error from failed

    def _unless_missing(
        self, call: Callable[[], T], of_the_caller: frozenset[Outcome] = frozenset()
    ) -> T | None:
        try:
            return call()
        except CallFailedError as failed:
            if failed.failure.outcome in of_the_caller:
                raise
            if failed.failure.outcome is not Outcome.MISSING:
                raise failed.failure.error from failed
        if not self._requests.has_bucket:
            # An answer without a body does not tell a missing bucket from a missing object.
            self.list_directory("-")
        return None


def _taken(where: str) -> Failure:
    return Failure(Outcome.TAKEN, StorageError(f"cannot write {where}: it exists"))
