"""One request after the other until a call has succeeded, or cannot succeed any more.

The library's own tries are off: it takes a lost answer of a create for a name that is taken. An
upload may take as long as its length allows at a slow link's speed, a download as long as it flows.
"""

import time
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any, Final, TypeVar

from msgspec import Struct
from obstore.exceptions import BaseError

from virtbackup_async.repository.storage.objects.failures import Failure, Outcome, failure_of
from virtbackup_async.repository.storage.objects.traffic import Traffic

T = TypeVar("T")
_LIBRARY: Final = (BaseError, OSError, NotImplementedError)
_CLASS_BITS: Final = 20
_DOWNLOAD_S: Final = 4 * 3600.0
_DOUBLED: Final = 2


class Patience(Struct, frozen=True):
    """How long calls wait, and how long they are tried again.

    Attributes:
        answer_s: for an answer, or for more of one.
        least_bytes_s: an upload that is slower is given up.
        first_s: how long a store is tried that has not answered yet.
        gone_s: how long a store is tried that has answered before.
        pause_s: before the second try; each further pause is twice as long.
        longest_pause_s: no pause is longer.
    """

    answer_s: float = 30.0
    least_bytes_s: int = 128 * 1024
    first_s: float = 15.0
    gone_s: float = 180.0
    pause_s: float = 0.2
    longest_pause_s: float = 10.0


class CallFailedError(Exception):
    """A call failed with an outcome that its caller can answer."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error.message)
        self.failure = failure


PASSING: Final = frozenset({Outcome.PASSING})
# Another call at the same time is no reason to give up what sets no condition.
_PASSING_OR_BUSY: Final = PASSING | {Outcome.TAKEN}
_OF_THE_CALLER: Final = frozenset(Outcome) - {Outcome.PASSING, Outcome.FINAL, Outcome.NO_BUCKET}


class LyingError(BaseError):
    """An answer is shorter than it says, or denies what was done."""


Client = Any
"""One of the library's stores."""
Answer = Any
"""What the library answers, or takes: its types are for type checkers alone."""


class Request(Struct, frozen=True):
    """What is asked of the store.

    Attributes:
        verb: for the count.
        name: of the object or directory.
        doing: a verb for messages.
        size_bytes: of an upload.
        is_only_try: whether the caller answers all failures.
        passing: the outcomes after which another try may succeed.
    """

    verb: str
    name: str
    doing: str
    size_bytes: int = 0
    is_only_try: bool = False
    passing: frozenset[Outcome] = _PASSING_OR_BUSY


class Connection(Struct, frozen=True):
    """How to reach a store.

    Attributes:
        client: returns a client for requests that take at most so many seconds in all, and for
            whose answers it waits so long at each step.
        make_bucket: makes the bucket, if that is allowed.
    """

    client: Callable[[float, float], Client]
    make_bucket: Callable[[], None] | None = None


class Requests:
    """Sends requests, and counts them; any thread may.

    Attributes:
        traffic: the counts.
        has_bucket: True as soon as an answer proved that the bucket is there.
    """

    def __init__(
        self, connection: Connection, where: Callable[[str], str], patience: Patience
    ) -> None:
        self.traffic = Traffic()
        self.has_bucket = False
        self._connection = connection
        self._where = where
        self._patience = patience
        self._clients: dict[int, Client] = {}
        self._turn = Lock()

    def run(self, request: Request, call: Callable[[Client], T]) -> T:
        """Call the library until that succeeds, or cannot.

        Raises:
            CallFailedError: it failed with an outcome for the caller, or in the only try.
            StorageError: it cannot succeed.
        """
        client = self._client(request.size_bytes if request.verb == "put" else None)
        until = self.deadline()
        for pause_s in self.pauses():
            self.traffic.note(request.verb, request.name)
            try:
                done = call(client)
            except _LIBRARY as error:
                failure = failure_of(error, request.doing, self._where(request.name))
            else:
                self.has_bucket = True
                return done
            if failure.outcome is Outcome.NO_BUCKET and self._makes_bucket():
                continue
            if request.is_only_try or failure.outcome in _OF_THE_CALLER - request.passing:
                raise CallFailedError(failure)
            if failure.outcome not in request.passing or time.monotonic() + pause_s > until:
                raise failure.error
            time.sleep(pause_s)
        raise AssertionError  # pauses never end

    def _makes_bucket(self) -> bool:
        """Make the bucket, if that is allowed and was not tried before."""
        with self._turn:
            make, self._connection = self._connection.make_bucket, _only_client(self._connection)
        if make is not None:
            make()
        return make is not None

    def deadline(self) -> float:
        patience = self._patience
        return time.monotonic() + (patience.gone_s if self.has_bucket else patience.first_s)

    def pauses(self) -> Iterator[float]:
        pause_s = self._patience.pause_s
        while True:
            yield pause_s
            pause_s = min(pause_s * _DOUBLED, self._patience.longest_pause_s)

    def _client(self, upload_bytes: int | None) -> Client:
        """Return a client whose time-out fits an upload of that length, or a download."""
        patience = self._patience
        if upload_bytes is None:
            key, most_s, step_s = -1, _DOWNLOAD_S, patience.answer_s
        else:
            key = max(0, (upload_bytes - 1).bit_length() - _CLASS_BITS)
            most_s = patience.answer_s + (1 << key + _CLASS_BITS) / patience.least_bytes_s
            step_s = most_s
        with self._turn:
            if key not in self._clients:
                self._clients[key] = self._connection.client(most_s, step_s)
            return self._clients[key]


def _only_client(connection: Connection) -> Connection:
    return Connection(connection.client)
