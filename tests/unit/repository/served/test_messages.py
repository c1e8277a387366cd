"""served/frames.py, messages.py: what is a message, whatever the bytes are."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbackup_async.repository.storage.served import messages as m
from virtbackup_async.repository.storage.served.frames import (
    MAX_FRAME_BYTES,
    PIECE_BYTES,
    FrameError,
    Frames,
    frame,
)

KINDS = [kind for kind in m.ServedRequest.__args__ if kind is not m.Hello]


def message_of(kind, draw=b""):
    """A message with every field set to something."""
    values = {
        "bytes": b"x",
        "str": "x",
        "bool": True,
        "int": 1,
        "float": 1.5,
    }
    chosen = {}
    for field in msgspec.structs.fields(kind):
        text = str(field.type)
        if "tuple" in text:
            chosen[field.name] = ("x",) if field.name == "kinds" else (b"x", b"y")
        else:
            chosen[field.name] = next(
                value for name, value in values.items() if f"'{name}'" in text or name in text
            )
    return kind(**chosen)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_request_arrives_as_it_was_sent(kind):
    message = message_of(kind)
    (body,) = Frames().feed(m.encode(message))
    assert m.decode_request(body) == message


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.data())
def test_messages_do_not_depend_on_how_their_bytes_come(bodies, data):
    stream = b"".join(map(frame, bodies))
    frames, found = Frames(), []
    while stream:
        length = data.draw(st.integers(1, len(stream)))
        found += frames.feed(stream[:length])
        stream = stream[length:]
    assert found == bodies
    assert frames.is_between


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_refused(data):
    frames = Frames()
    with suppress(FrameError):
        for body in frames.feed(data):
            for decode in (m.decode_request, m.decode_reply):
                with suppress(FrameError):
                    decode(body)


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.binary()
    | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
))  # fmt: skip
def test_any_value_is_a_message_or_refused(value):
    for decode in (m.decode_request, m.decode_reply):
        with pytest.raises(FrameError):
            decode(msgspec.msgpack.encode(value))


@pytest.mark.parametrize("length", [0, MAX_FRAME_BYTES + 1, (1 << 32) - 1])
def test_no_memory_is_taken_for_a_frame_that_is_too_long(length):
    with pytest.raises(FrameError):
        list(Frames().feed(length.to_bytes(4, "big")))
    with pytest.raises(FrameError):
        frame(b"x" * length if length < 1 << 31 else b"")


@pytest.mark.parametrize(
    "message",
    [
        m.Append(1, 1, b"x" * (PIECE_BYTES + 1)),
        m.ReadAt(1, 1, PIECE_BYTES + 1, 0, "whole"),
        m.ReadAt(1, 1, 1, -1, "whole"),
        m.Exists(1, b"x" * 4097),
        m.Exists(-1, b"x"),
        m.Close(1, 1 << 31),
        m.Sizes(1, (b"x",) * (m.MAX_NAMES + 1)),
        m.Hello(0),
    ],
)
def test_what_is_too_long_is_refused(message):
    with pytest.raises(FrameError):
        m.decode_request(m.encode(message)[4:])


def test_what_a_newer_side_adds_is_ignored():
    newer = msgspec.msgpack.encode({"type": "exists", "id": 1, "name": b"x", "more": [1]})
    assert m.decode_request(newer) == m.Exists(1, b"x")


def test_names_need_not_be_utf_8():
    name = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert m.from_wire(m.to_wire(name)) == name
    assert m.encode(m.Failed(1, "x", m.text(name)))
