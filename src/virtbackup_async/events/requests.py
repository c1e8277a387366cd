"""The events of requests to object stores."""

from typing import ClassVar

from msgspec import Struct


class RequestCount(Struct, frozen=True):
    """Requests of one verb for one kind of file.

    ``verb`` is ``put``, ``get``, ``list``, ``head`` or ``delete``; ``file`` is ``packs``,
    ``index``, ``leases``, ``repository`` or ``guests`` (maps, definitions, everything else).
    """

    verb: str
    file: str
    requests: int
    sent_bytes: int
    received_bytes: int


class StoreRequests(Struct, frozen=True):
    """The requests of a command to one object store, repeated ones included.

    Bytes are those of the contents, without headers and the store's own lists.
    """

    kind: ClassVar[str] = "store_requests"
    target: str
    requests: int
    sent_bytes: int
    received_bytes: int
    kinds: tuple[RequestCount, ...]


class PastRequests(Struct, frozen=True):
    """The requests of all hosts' runs of the last days, by the history of an object store.

    ``runs`` counts those of ``backup``, ``verify``, ``clean`` and ``forget`` that recorded theirs.
    """

    kind: ClassVar[str] = "past_requests"
    target: str
    days: int
    runs: int
    requests: dict[str, int]
    sent_bytes: int
    received_bytes: int
