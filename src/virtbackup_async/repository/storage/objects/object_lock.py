"""Object Lock of an S3 bucket: what it protects by itself, and how to protect it longer.

A bucket with Object Lock keeps every version of its objects; removing an object hides it, and its
data stays as long as it is locked. The bucket's *default retention* locks each new object for some
days. A backup of today needs chunks of long ago, so the lock of whatever is still needed has to be
extended, again and again. The library has no call for that: these requests are signed here, with
keys from the environment or the AWS files.
"""

import base64
import hashlib
import http.client
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from virtbackup_async.errors import StorageError
from virtbackup_async.repository.storage.object_locks import BucketLock
from virtbackup_async.repository.storage.objects.failures import Outcome
from virtbackup_async.repository.storage.objects.requests import (
    CallFailedError,
    Connection,
    Patience,
    Request,
    Requests,
)
from virtbackup_async.repository.storage.objects.signing import Keys, SignedRequest, sign

_DAY_S: Final = 86400.0
_YEAR_DAYS: Final = 365
_MODES: Final = frozenset({"COMPLIANCE", "GOVERNANCE"})
_MAX_ANSWER: Final = 64 * 1024
_AT_ONCE: Final = 16
_OK: Final = range(200, 300)
_NOT_FOUND: Final = 404
_NONE_CODES: Final = frozenset(
    {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "NotImplemented"}
)
_RETENTION: Final = (
    '<Retention xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Mode>{}</Mode>'
    "<RetainUntilDate>{:%Y-%m-%dT%H:%M:%SZ}</RetainUntilDate></Retention>"
)


class LockedObject(Struct, frozen=True):
    """The lock of one object; ``until_s`` is None if it has none."""

    mode: str | None
    until_s: float | None


class ObjectLocks:
    """The locks of a target in an S3 store; any thread may call."""

    def __init__(
        self,
        endpoint: str,
        path: tuple[str, str],
        keys: Keys,
        where: Callable[[str], str],
        patience: Patience,
    ) -> None:
        """Name the place.

        Args:
            endpoint: the URL of the server.
            path: the bucket, and the path of the target in it, or an empty one.
            keys: the credentials.
            where: returns the name of an object in messages.
            patience: how long requests wait and are tried again.
        """
        self._endpoint = urlsplit(endpoint)
        self._bucket, self._prefix = path
        self._keys = keys
        self._patience = patience
        self._requests = Requests(Connection(lambda _most_s, _step_s: None), where, patience)

    def of_bucket(self) -> BucketLock | None:
        """Return the Object Lock of the bucket; None if it has none, or the store knows none.

        Raises:
            StorageError: the store cannot be asked, or refuses to tell.
        """
        try:
            text = self.send("GET", None, "object-lock")
        except CallFailedError as failed:
            if failed.failure.outcome in {Outcome.MISSING, Outcome.UNKNOWN_WAY}:
                return None
            raise failed.failure.error from failed
        if _word(text, "ObjectLockEnabled") != "Enabled":
            return None
        mode, days, years = (_word(text, tag) for tag in ("Mode", "Days", "Years"))
        if mode not in _MODES or not (days or years or "").isdecimal():
            return BucketLock()
        length = int(days) if days else int(years or 0) * _YEAR_DAYS
        return BucketLock(mode, length * _DAY_S) if length else BucketLock()

    def of_object(self, name: str) -> LockedObject | None:
        """Return the lock of an object; None if there is no such object, or it has no lock.

        Raises:
            StorageError: the store cannot be asked.
        """
        try:
            text = self.send("GET", name, "retention")
        except CallFailedError as failed:
            if failed.failure.outcome is Outcome.MISSING:
                return None
            raise failed.failure.error from failed
        return LockedObject(_word(text, "Mode"), _time(_word(text, "RetainUntilDate")))

    def extend(self, names: Iterable[str], mode: str, until_s: float) -> int:
        """Lock objects until a time, several at once; return how many are locked until then.

        One that is gone by now, or locked for longer, counts as well.

        Raises:
            StorageError: one cannot be locked; others may be.
        """
        with ThreadPoolExecutor(_AT_ONCE, "extend locks") as threads:
            done = threads.map(lambda name: self._extend(name, mode, until_s), names)
            return sum(1 for _ in done)

    def _extend(self, name: str, mode: str, until_s: float) -> None:
        body = _RETENTION.format(mode, datetime.fromtimestamp(until_s, UTC)).encode()
        try:
            self.send("PUT", name, "retention", body)
        except CallFailedError as failed:
            if failed.failure.outcome is not Outcome.MISSING:
                raise failed.failure.error from failed
        except StorageError:
            # A lock is never shortened, and the answer to an earlier try may have been lost.
            locked = self.of_object(name)
            if locked is None or (locked.until_s or 0.0) < int(until_s):
                raise

    def send(
        self,
        method: str,
        name: str | None,
        query: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Send a request, again if need be, and return the beginning of the answer's content.

        Args:
            method: of HTTP.
            name: of an object; None for the bucket.
            query: what of it is meant.
            body: the content.
            headers: further headers, with names in lower case.

        Raises:
            CallFailedError: it failed with an outcome for the caller.
            StorageError: it cannot succeed.
        """
        place = [self._bucket, *(step for step in (self._prefix, name) if name and step)]
        headers = {**(headers or {})}
        if body:
            # S3 demands this checksum of a change of locks, whatever else protects it.
            checksum = hashlib.md5(body, usedforsecurity=False).digest()
            headers["content-md5"] = base64.b64encode(checksum).decode()
        path = f"{self._endpoint.path.rstrip('/')}/{'/'.join(place)}"
        request = SignedRequest(method, self._endpoint.netloc, path, query, body, headers)
        doing = "lock" if body else "read the lock of"
        return self._requests.run(
            Request("lock", name or "", doing), lambda _client: self._once(request)
        )

    def _once(self, request: SignedRequest) -> str:
        headers = sign(request, self._keys, datetime.now(UTC))
        connection = self._connection()
        try:
            url = f"{request.quoted_path}?{request.query}"
            connection.request(request.method, url, request.body or None, headers)
            answer = connection.getresponse()
            text = answer.read(_MAX_ANSWER).decode("utf-8", "replace")
        except http.client.HTTPException as error:
            raise OSError(f"the answer of the store was cut off: {error!r}") from error
        finally:
            connection.close()
        if answer.status in _OK:
            return text
        code = _word(text, "Code")
        if code in _NONE_CODES or (answer.status == _NOT_FOUND and code != "NoSuchBucket"):
            raise FileNotFoundError(request.path)
        # In the library's words, which ``failures`` understands.
        raise OSError(f"status code: {answer.status} <Code>{code}</Code>")

    def _connection(self) -> http.client.HTTPConnection:
        timeout_s = self._patience.answer_s
        if self._endpoint.scheme == "http":
            return http.client.HTTPConnection(self._endpoint.netloc, timeout=timeout_s)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(
            self._endpoint.netloc, timeout=timeout_s, context=context
        )


def _word(text: str, tag: str) -> str | None:
    """Return the content of the first element of that name, if it is one word."""
    found = re.search(rf"<{tag}>([A-Za-z0-9:.+-]{{1,64}})</{tag}>", text)
    return found[1] if found else None


def _time(text: str | None) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None
