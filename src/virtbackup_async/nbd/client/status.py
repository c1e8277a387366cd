"""The block status of a whole export, in several meta contexts at once.

A server answers for each context by itself: with longer or shorter runs, and it may end early, or
late, in each of them elsewhere. One request, four descriptors of the one and two of the other::

    asked             |--------------------------------|
    base:allocation   |data |zero       |data|           ends early
    dirty bitmap      |clean    |dirty           |clean     ends later, even behind what was asked

    walked            |a    |b  |c      |d   |           up to where the shortest answer ends
    asked next                               |-----------|

So each context has a cursor of its own over its answer, and a run is cut wherever any of them
changes. What a longer answer told beyond the shortest one comes again with the next request, which
asks for all contexts at once anyway. Neighbours of the same flags are one run, over requests too.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.errors import NbdRefusedError
from virtbackup_async.nbd.client.client import NbdClient
from virtbackup_async.nbd.protocol.request import Descriptors


class StatusRun(Struct, frozen=True):
    """A run of bytes that are alike in each of the contexts asked for.

    ``flags`` has one value for each context, in the order in which they were asked for.
    """

    start: int
    length: int
    flags: tuple[int, ...]

    @property
    def end(self) -> int:
        """The first byte behind the run."""
        return self.start + self.length


async def walk_status(
    client: NbdClient, contexts: Sequence[str], start: int = 0, end: int | None = None
) -> AsyncGenerator[StatusRun]:
    """Tell all of an export, or a part of it, in ascending runs without a gap.

    Args:
        client: the export; one answer of it is held at a time.
        contexts: meta contexts that were granted.
        start: the first byte.
        end: the first byte behind the part; None for the export's end.

    Raises:
        NbdRefusedError: a context was not granted.
        NbdError: see ``Connection.request``.
    """
    missing = set(contexts) - set(client.export.contexts.values())
    if missing:
        raise NbdRefusedError(f"the server tells nothing of {', '.join(sorted(missing))}")
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
    """Lay answers that begin at ``start`` over each other, up to the end of the shortest."""
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
