"""Counts the requests to an object store and their bytes, by verb and by kind of file."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Final

from msgspec import Struct

_KINDS: Final = (
    (".virtbackup-repository/packs", "packs"),
    (".virtbackup-repository/index", "index"),
    (".virtbackup-repository/leases", "leases"),
    (".virtbackup-repository", "repository"),
)


class Count(Struct):
    """The requests of one kind.

    Attributes:
        requests: how many, failed ones and further tries included.
        sent_bytes: the bytes of their contents.
        received_bytes: the bytes of the contents that were answered.
    """

    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


class Traffic:
    """The requests of a storage; any thread may count."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str], Count] = defaultdict(Count)
        self._turn = Lock()

    def note(
        self, verb: str, name: str, *, requests: int = 1, sent: int = 0, received: int = 0
    ) -> None:
        """Count requests for a file, or for a directory that is listed.

        Args:
            verb: ``put``, ``get``, ``list``, ``head`` or ``delete``.
            name: of the file or directory in the target.
            requests: how many.
            sent: the bytes of their contents.
            received: the bytes of the answered contents.
        """
        with self._turn:
            count = self._counts[verb, kind_of(name)]
            count.requests += requests
            count.sent_bytes += sent
            count.received_bytes += received

    def add(self, counts: Mapping[tuple[str, str], Count]) -> None:
        """Add the counts of another storage."""
        with self._turn:
            for key, one in counts.items():
                count = self._counts[key]
                count.requests += one.requests
                count.sent_bytes += one.sent_bytes
                count.received_bytes += one.received_bytes

    def by_kind(self) -> dict[tuple[str, str], Count]:
        """Return a copy of all counts so far, by verb and kind of file."""
        with self._turn:
            return {
                key: Count(count.requests, count.sent_bytes, count.received_bytes)
                for key, count in sorted(self._counts.items())
            }

    def total(self) -> Count:
        """Return the sums of all counts so far."""
        counts = self.by_kind().values()
        return Count(
            sum(count.requests for count in counts),
            sum(count.sent_bytes for count in counts),
            sum(count.received_bytes for count in counts),
        )


def sum_of(parts: Iterable[Traffic]) -> dict[tuple[str, str], Count]:
    """Return the sums of several storages' counts, by verb and kind of file."""
    total = Traffic()
    for part in parts:
        total.add(part.by_kind())
    return total.by_kind()


def kind_of(name: str) -> str:
    """Return the kind of a file: ``packs``, ``index``, ``leases``, ``repository`` or ``guests``.

    ``guests`` are all files beside the repository: maps, definitions and the directories of guests.
    """
    for directory, kind in _KINDS:
        if name == directory or name.startswith(f"{directory}/"):
            return kind
    return "guests"
