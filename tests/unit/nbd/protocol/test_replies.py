"""replies.py and request.py: any valid reply is understood, no invalid one does harm."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import nbd_wire as wire
from virtbackup_async.errors import NbdConnectionError, NbdProtocolError, NbdRequestError
from virtbackup_async.nbd.protocol.constants import Command, ReplyType
from virtbackup_async.nbd.protocol.replies import ReplyParser
from virtbackup_async.nbd.protocol.request import Request

GUARD = 64


class Conversation:
    """A parser with requests on their way; the readers' memory lies between guard bytes."""

    def __init__(self, *, structured=True, contexts=(0, 7)):
        self.done = []
        self.parser = ReplyParser(contexts, self.done.append, is_structured=structured)
        self.memory = {}

    def read(self, cookie, offset, length):
        self.memory[cookie] = bytearray(b"\xee" * (length + 2 * GUARD))
        target = memoryview(self.memory[cookie])[GUARD : GUARD + length]
        return self.expect(Request(Command.READ, cookie, offset, length, target))

    def status(self, cookie):
        return self.expect(Request(Command.BLOCK_STATUS, cookie, 0, 4096))

    def expect(self, request):
        self.parser.expect(request)
        return request

    def feed(self, stream, sizes=None):
        sizes = sizes or iter(lambda: 1 << 20, None)
        while stream:
            buffer = self.parser.buffer()
            count = min(len(buffer), len(stream), next(sizes))
            buffer[:count], stream = stream[:count], stream[count:]
            self.parser.filled(count)

    def assert_guarded(self):
        for memory in self.memory.values():
            assert memory[:GUARD] == memory[-GUARD:] == b"\xee" * GUARD


@st.composite
def replies(draw, cookie):
    """A read, its content, and the chunks of a valid reply to it, in some order."""
    offset, length = draw(st.integers(0, 1 << 40)), draw(st.integers(1, 3000))
    cuts = sorted(draw(st.sets(st.integers(1, max(1, length - 1)), max_size=6)) - {length})
    parts = list(zip([0, *cuts], [*cuts, length], strict=True))
    content, chunks = bytearray(length), []
    for number, (start, end) in enumerate(parts, start=1):
        if draw(st.booleans()):
            chunks.append(wire.hole(cookie, offset + start, end - start))
        else:
            content[start:end] = bytes([number]) * (end - start)
            chunks.append(wire.data(cookie, offset + start, bytes(content[start:end])))
    return (offset, length), bytes(content), [*draw(st.permutations(chunks)), wire.none(cookie)]


@st.composite
def conversations(draw):
    """Several reads, and one stream in which their chunks are mixed."""
    reads = [draw(replies(cookie)) for cookie in range(1, draw(st.integers(1, 4)) + 1)]
    queues, stream = [list(chunks) for _, _, chunks in reads], b""
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        stream += queue.pop(0)
    return [(place, content) for place, content, _ in reads], stream


def sizes_of(data):
    return iter(lambda: data.draw(st.integers(1, 700)), None)


@settings(deadline=None)
@given(conversations(), st.data())
def test_reads_are_put_together_however_they_are_cut(conversation, data):
    reads, stream = conversation
    talk = Conversation()
    requests = [talk.read(n, *place) for n, (place, _) in enumerate(reads, start=1)]
    talk.feed(stream, sizes_of(data))
    assert sorted(request.cookie for request in talk.done) == [r.cookie for r in requests]
    assert [bytes(request.target) for request in requests] == [content for _, content in reads]
    assert not talk.parser.requests
    talk.assert_guarded()


@settings(deadline=None)
@given(conversations(), st.data())
def test_damaged_replies_touch_nothing_else(conversation, data):
    reads, stream = conversation
    talk = Conversation()
    for number, (place, _) in enumerate(reads, start=1):
        talk.read(number, *place)
    damaged = bytearray(stream)
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(NbdProtocolError):
        talk.feed(bytes(damaged), sizes_of(data))
    talk.assert_guarded()


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_never_understood_as_success(noise):
    talk = Conversation()
    talk.read(1, 0, 100)
    with contextlib.suppress(NbdProtocolError):
        talk.feed(noise)
        assert len(talk.parser.buffer()) > 0
    assert not talk.done


@settings(deadline=None)
@given(conversations(), st.data())
def test_an_abandoned_read_leaves_its_memory_alone(conversation, data):
    reads, stream = conversation
    talk = Conversation()
    requests = [talk.read(n, *place) for n, (place, _) in enumerate(reads, start=1)]
    cut = data.draw(st.integers(0, len(stream)))
    talk.feed(stream[:cut], sizes_of(data))
    talk.parser.abandon(requests[0])
    before = bytes(talk.memory[1])
    talk.feed(stream[cut:], sizes_of(data))
    assert bytes(talk.memory[1]) == before
    assert len(talk.done) == len(reads)
    for request, (_, content) in list(zip(requests, reads, strict=True))[1:]:
        assert bytes(request.target) == content


def test_a_simple_reply_carries_a_whole_read():
    talk = Conversation(structured=False)
    request = talk.read(1, 500, 4)
    talk.feed(wire.simple(1) + b"data")
    assert talk.done == [request]
    assert bytes(request.target) == b"data"


def test_block_status_comes_context_by_context():
    talk = Conversation()
    request = talk.status(1)
    talk.feed(wire.status(1, 7, [(512, 1)]) + wire.status(1, 0, [(4096, 3), (4096, 0)], done=True))
    assert request.statuses == {7: ((512, 1),), 0: ((4096, 3), (4096, 0))}


@pytest.mark.parametrize(
    "stream",
    [
        wire.error(1, 5, b"disk\x1b[2J on\nfire."),
        wire.error(1, 5, b"disk [2J on fire", kind=ReplyType.ERROR_OFFSET, tail=bytes(8)),
        wire.error(1, 5, b"disk [2J on fire", kind=0x8123),
        wire.data(1, 0, bytes(10))
        + wire.error(1, 5, b"disk [2J on fire", done=False)
        + wire.none(1),
    ],
)
def test_an_error_fails_the_request_and_nothing_else(stream):
    talk = Conversation()
    failing, other = talk.read(1, 0, 100), talk.read(2, 0, 3)
    talk.feed(stream + wire.data(2, 0, b"abc", done=True))
    assert talk.done == [failing, other]
    assert isinstance(failing.error, NbdRequestError)
    assert failing.error.errno == 5
    said = "read of 100 B at byte 0 failed: Input/output error (disk [2J on fire)"
    assert failing.error.message == said
    assert other.error is None


def test_a_server_that_shuts_down_is_to_be_connected_anew():
    talk = Conversation()
    request = talk.read(1, 0, 100)
    talk.feed(wire.error(1, 108))
    assert isinstance(request.error, NbdConnectionError)


READ_LIES = {
    "too short": wire.data(1, 0, bytes(99)) + wire.none(1),
    "done too early": wire.data(1, 0, bytes(50), done=True),
    "twice": wire.data(1, 0, bytes(60)) + wire.data(1, 59, bytes(41)) + wire.none(1),
    "twice in the middle": wire.data(1, 0, bytes(100)) + wire.hole(1, 50, 1) + wire.none(1),
    "around what came": wire.hole(1, 10, 5) + wire.data(1, 0, bytes(100)) + wire.none(1),
    "before it": wire.data(1, 2**64 - 1, bytes(100)),
    "behind it": wire.data(1, 1, bytes(100)),
    "empty": wire.chunk(1, ReplyType.OFFSET_DATA, bytes(8)),
    "empty hole": wire.hole(1, 0, 0),
    "huge hole": wire.hole(1, 0, 2**32 - 1),
    "a simple reply": wire.simple(1) + bytes(100),
    "another's": wire.data(9, 0, bytes(100)),
    "status": wire.status(1, 0, [(100, 0)]),
    "unknown type": wire.chunk(1, 77, bytes(5)),
    "none, and more": wire.chunk(1, ReplyType.NONE),
    "none with data": wire.chunk(1, ReplyType.NONE, b"x", done=True),
    "no error": wire.error(1, 0, b"fine"),
    "message too long": wire.chunk(1, ReplyType.ERROR, b"\0\0\0\5\0\x09short", done=True),
    "endless message": wire.chunk(1, ReplyType.ERROR, bytes(5000), done=True),
}
STATUS_LIES = {
    "a context missing": wire.status(1, 0, [(4096, 0)], done=True),
    "a context twice": wire.status(1, 0, [(4096, 0)]) + wire.status(1, 0, [(4096, 0)]),
    "unknown context": wire.status(1, 3, [(4096, 0)]),
    "no bytes": wire.status(1, 0, [(4096, 0), (0, 1)]),
    "no descriptors": wire.status(1, 0, []),
    "half a descriptor": wire.chunk(1, ReplyType.BLOCK_STATUS, bytes(13)),
    "a simple reply": wire.simple(1),
    "data": wire.data(1, 0, bytes(10)),
    "none at all": wire.none(1),
}


@pytest.mark.parametrize("lie", READ_LIES)
def test_a_read_that_makes_no_sense_is_a_violation(lie):
    talk = Conversation()
    talk.read(1, 0, 100)
    with pytest.raises(NbdProtocolError):
        talk.feed(READ_LIES[lie])
    assert not talk.done
    talk.assert_guarded()


@pytest.mark.parametrize("lie", STATUS_LIES)
def test_a_status_that_makes_no_sense_is_a_violation(lie):
    talk = Conversation()
    talk.status(1)
    with pytest.raises(NbdProtocolError):
        talk.feed(STATUS_LIES[lie])
    assert not talk.done


@settings(deadline=None)
@given(st.integers(1, 60), st.data())
def test_bytes_are_covered_once_or_it_is_noticed(length, data):
    request = Request(Command.READ, 1, 1000, length)
    seen = set()
    for _ in range(12):
        start = data.draw(st.integers(0, length - 1))
        part = data.draw(st.integers(1, length - start))
        these = set(range(start, start + part))
        if seen & these:
            with pytest.raises(NbdProtocolError):
                request.cover(1000 + start, part)
            return
        request.cover(1000 + start, part)
        seen |= these
        assert request.is_covered == (len(seen) == length)
