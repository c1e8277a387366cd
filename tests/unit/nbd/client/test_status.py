"""nbd/client/status.py: whatever a server answers, the walk tells what each byte is, in order."""

import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtbackup_async.errors import NbdRefusedError
from virtbackup_async.nbd.client.status import StatusRun, walk_status

CONTEXTS = ("base:allocation", "qemu:dirty-bitmap:one")


class Server:
    """Knows the flags of each byte; answers at a length and in pieces of its own choice."""

    def __init__(self, flags, draw):
        self.flags = flags
        self.draw = draw
        self.export = SimpleNamespace(
            size_bytes=len(flags[CONTEXTS[0]]), contexts=dict(enumerate(CONTEXTS))
        )

    async def block_status(self, offset, length):
        return {
            context: self.answer(flags[offset:], length) for context, flags in self.flags.items()
        }

    def answer(self, flags, length):
        told = self.draw(st.integers(1, length))
        descriptors = []
        while told > 0:
            same = next((n for n, f in enumerate(flags) if f != flags[0]), len(flags))
            # A part of the run, or all of it: the last one even beyond what was asked.
            part = self.draw(st.integers(1, same))
            descriptors.append((part, flags[0]))
            flags, told = flags[part:], told - part
        return tuple(descriptors)


@settings(deadline=None)
@given(st.data())
def test_a_walk_tells_all_bytes_and_joins_what_is_alike(data):
    size = data.draw(st.integers(0, 40))
    flags = {
        c: data.draw(st.lists(st.integers(0, 1), min_size=size, max_size=size)) for c in CONTEXTS
    }
    server = Server(flags, data.draw)
    start = data.draw(st.integers(0, size))

    async def walk():
        return [run async for run in walk_status(server, CONTEXTS, start)]

    runs = run_now(walk())
    told = [run.flags for run in runs for _ in range(run.length)]
    assert told == list(zip(*flags.values(), strict=True))[start:]
    assert [run.start for run in runs] == [start, *(run.end for run in runs)][: len(runs)]
    assert all(one.flags != other.flags for one, other in itertools.pairwise(runs))


async def test_a_context_that_was_not_granted_is_refused():
    server = SimpleNamespace(export=SimpleNamespace(size_bytes=1, contexts={0: CONTEXTS[0]}))
    with pytest.raises(NbdRefusedError, match="qemu:dirty-bitmap:one"):
        [run async for run in walk_status(server, CONTEXTS)]


def test_a_run_knows_its_end():
    assert StatusRun(5, 7, (0,)).end == 12


def run_now(coroutine):
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")
