"""The block status of a whole export, in several meta contexts at once.

A server replies for each context separately, in longer or shorter runs, and can end early or late,
at another offset in each. For example, one request, with four descriptors for the first context and
two for the second::

    asked             |--------------------------------|
    base:allocation   |data |zero       |data|           ends early
    dirty bitmap      |clean    |dirty           |clean     ends later, even past the range

    walked            |a    |b  |c      |d   |           to the end of the shortest reply
    asked next                               |-----------|

So each context has its own cursor over its reply, and a run ends wherever any of them changes. The
next request starts at the end of the shortest reply, and asks for all contexts again. Adjacent runs
with equal flags are joined, also across requests.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.errors import NbdRefusedError
from virtbackup_async.nbd.client.client import NbdClient
from virtbackup_async.nbd.protocol.request import Descriptors


class StatusRun(Struct, frozen=True):
    """A run of bytes with the same flags in each of the requested contexts.

    ``flags`` has one value for each context, in the requested order.
    """

    start: int
    length: int
    flags: tuple[int, ...]

    @property
    def end(self) -> int:
        """The offset after the run."""
        return self.start + self.length


async def walk_status(
    client: NbdClient, contexts: Sequence[str], start: int = 0, end: int | None = None
) -> AsyncGenerator[StatusRun]:
    """Yield the block status of an export, or a part of it, in ascending runs without gaps.

    Args:
        client: the export; one reply is in memory at a time.
        contexts: meta contexts that were granted.
        start: the first byte.
        end: the offset after the last byte; None for the export's end.

    Raises:
        NbdRefusedError: a context was not granted.
        NbdError: see ``Connection.request``.
    """
    missing = set(contexts) - set(client.export.contexts.values())
    if missing:
        raise NbdRefusedError(f"the server does not report {', '.join(sorted(missing))}")
    position, end = start, client.export.size_bytes if end is None else end
    last: StatusRun | None = None
    while position < end:
        answer = await client.block_status(position, end - position)
        for run in merged(position, end, [answer[context] for context in contexts]):
            if last is not None and last.flags == run.flags:
                last = replace(last, length=last.length + run.length)
            else:
                if last is not None:
                    yield last
                last = run
            position = run.end
    if last is not None:
        yield last


def merged(start: int, end: int, answers: Sequence[Descriptors]) -> Iterator[StatusRun]:
    """Combine replies that begin at ``start``, up to the end of the shortest one."""
    cursors = [iter(answer) for answer in answers]
    left = [0] * len(cursors)
    flags = [0] * len(cursors)
    while start < end:
        for number, cursor in enumerate(cursors):
            if left[number] == 0:
                following = next(cursor, None)
                if following is None:
                    return
                left[number], flags[number] = following
        length = min(*left, end - start)
        yield StatusRun(start, length, tuple(flags))
        left = [rest - length for rest in left]
        start += length
