"""The requests that a command made to object stores, by target: some providers charge for each.

A store counts them for as long as the process lives; a meter gives the difference to when it was
made. Two that run at once in one process each count the requests of both.
"""

from collections.abc import Iterator

from virtbackup_async.events import RequestCount, StoreRequests
from virtbackup_async.repository import requests_so_far


class RequestMeter:
    """Counts requests from now on."""

    def __init__(self) -> None:
        self._before = requests_so_far()

    def events(self) -> Iterator[StoreRequests]:
        """Yield an event for each store that got requests."""
        for target, counts in requests_so_far().items():
            before = self._before.get(target, {})
            kinds = []
            for (verb, kind), count in counts.items():
                old = before.get((verb, kind))
                requests = count.requests - (old.requests if old else 0)
                sent_bytes = count.sent_bytes - (old.sent_bytes if old else 0)
                received_bytes = count.received_bytes - (old.received_bytes if old else 0)
                if requests or sent_bytes or received_bytes:
                    kinds.append(RequestCount(verb, kind, requests, sent_bytes, received_bytes))
            if kinds:
                yield StoreRequests(
                    target=target,
                    requests=sum(one.requests for one in kinds),
                    sent_bytes=sum(one.sent_bytes for one in kinds),
                    received_bytes=sum(one.received_bytes for one in kinds),
                    kinds=tuple(kinds),
                )
