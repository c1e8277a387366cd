"""nbd/protocol/handshake.py: what a server may say to a newcomer, and what it may not."""

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import nbd_wire as wire
from virtbackup_async.errors import NbdConnectionError, NbdError, NbdProtocolError, NbdRefusedError
from virtbackup_async.nbd.protocol.constants import ExportFlag, Info, Option, OptionReply
from virtbackup_async.nbd.protocol.handshake import handshake
from virtbackup_async.nbd.protocol.steps import Receive, Send, StartTls

ACK = OptionReply.ACK
STRUCTURED = wire.option_reply(Option.STRUCTURED_REPLY, ACK)
GO = wire.export_info(Option.GO, 4096, flags=0x103) + wire.option_reply(Option.GO, ACK)
TLS = wire.option_reply(Option.STARTTLS, ACK)


def granted(*contexts):
    payloads = (struct.pack(">I", n) + name for n, name in contexts)
    option = Option.SET_META_CONTEXT
    replies = [wire.option_reply(option, OptionReply.META_CONTEXT, payload) for payload in payloads]
    return b"".join([*replies, wire.option_reply(option, ACK)])


def sizes(*numbers):
    payload = struct.pack(">HIII", Info.BLOCK_SIZE, *numbers)
    return wire.option_reply(Option.GO, OptionReply.INFO, payload)


def declined(option, kind, said=b""):
    return wire.option_reply(option, kind, said)


def negotiate(stream, name="", contexts=(), *, tls=False):
    """Drive the handshake; return the export and all that was done beside receiving."""
    steps, done, answer = handshake(name, contexts, tls=tls), [], None
    try:
        while True:
            step = steps.send(answer)
            answer = None
            if isinstance(step, Receive):
                assert 0 < step.length <= 1 << 16
                if len(stream) < step.length:
                    raise NbdConnectionError("the stream ended")
                answer, stream = stream[: step.length], stream[step.length :]
            else:
                done.append(step)
    except StopIteration as end:
        return end.value, done


def test_an_export_is_described():
    stream = (
        wire.GREETING + STRUCTURED + granted((5, b"base:allocation")) + sizes(512, 4096, 1 << 25)
    )
    export, done = negotiate(stream + GO, "disk", ["base:allocation", "qemu:dirty-bitmap:x"])
    assert (export.name, export.size_bytes, export.contexts) == (
        "disk",
        4096,
        {5: "base:allocation"},
    )
    assert ExportFlag.READ_ONLY in export.flags
    assert ExportFlag.CAN_MULTI_CONN in export.flags
    assert (export.block_sizes.minimum, export.block_sizes.maximum) == (512, 1 << 25)
    assert export.is_structured
    assert done[0] == Send(b"\0\0\0\3")
    assert b"disk" in done[-1].data


def test_an_old_server_without_structured_replies_is_read_all_the_same():
    no = declined(Option.STRUCTURED_REPLY, OptionReply.ERR_UNSUP)
    export, _ = negotiate(wire.GREETING + no + GO, contexts=["base:allocation"])
    assert not export.is_structured
    assert export.contexts == {}


def test_encryption_comes_before_anything_else():
    _, done = negotiate(wire.GREETING + TLS + STRUCTURED + GO, "secret-name", tls=True)
    before = done[: done.index(StartTls())]
    assert all(b"secret-name" not in step.data for step in before)


REFUSALS = {
    "no TLS there": (declined(Option.STARTTLS, OptionReply.ERR_UNSUP), True, "no TLS"),
    "TLS wanted": (declined(Option.STRUCTURED_REPLY, OptionReply.ERR_TLS_REQD), False, "tls_reqd"),
    "no such export": (
        STRUCTURED + declined(Option.GO, OptionReply.ERR_UNKNOWN, b"no\x07 disk."),
        False,
        "no disk",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_says_why(case):
    stream, tls, why = REFUSALS[case]
    with pytest.raises(NbdRefusedError, match=why):
        negotiate(wire.GREETING + stream, tls=tls)


def test_a_server_that_shuts_down_is_to_be_asked_again():
    with pytest.raises(NbdConnectionError):
        negotiate(wire.GREETING + STRUCTURED + declined(Option.GO, OptionReply.ERR_SHUTDOWN))


def test_a_name_that_nbd_cannot_carry_is_refused():
    with pytest.raises(NbdRefusedError):
        negotiate(wire.GREETING + STRUCTURED, "x" * 5000)


CONTEXT = ["base:allocation"]
LIES = {
    "no NBD": b"SSH-2.0-OpenSSH_9.2 and so on",
    "oldstyle": struct.pack(">QQH", 0x4E42444D41474943, 0x420281861253, 0),
    "newstyle, not fixed": wire.GREETING[:-2] + b"\0\0",
    "answers another option": wire.GREETING + wire.option_reply(Option.GO, ACK),
    "reply without end": wire.GREETING + struct.pack(">QIII", 0x3E889045565A9, 8, 1, 1 << 31),
    "replies without end": wire.GREETING + wire.option_reply(Option.STRUCTURED_REPLY, 3) * 99,
    "no size": wire.GREETING + STRUCTURED + granted() + wire.option_reply(Option.GO, ACK),
    "size of 2^63": wire.GREETING + STRUCTURED + granted() + wire.export_info(Option.GO, 1 << 63)
    + wire.option_reply(Option.GO, ACK),
    "half a size": wire.GREETING + STRUCTURED + granted()
    + wire.option_reply(Option.GO, OptionReply.INFO, bytes(9))
    + wire.option_reply(Option.GO, ACK),
    "odd block size": wire.GREETING + STRUCTURED + granted() + sizes(513, 4096, 1 << 25) + GO,
    "no block size": wire.GREETING + STRUCTURED + granted() + sizes(0, 4096, 1 << 25) + GO,
    "no largest size": wire.GREETING + STRUCTURED + granted() + sizes(4096, 4096, 512) + GO,
    "context not asked for": wire.GREETING + STRUCTURED + granted((1, b"qemu:other")) + GO,
    "context twice": wire.GREETING + STRUCTURED
    + granted((1, b"base:allocation"), (2, b"base:allocation")) + GO,
    "context without name": wire.GREETING + STRUCTURED + granted((1, b"")) + GO,
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_what_makes_no_sense_is_a_violation(lie):
    with pytest.raises(NbdProtocolError):
        negotiate(LIES[lie], contexts=CONTEXT)


@settings(deadline=None)
@given(st.data())
def test_no_server_makes_it_fail_in_another_way(data):
    good = (
        wire.GREETING + STRUCTURED + granted((0, b"base:allocation")) + sizes(1, 4096, 1 << 25) + GO
    )
    stream = bytearray(good)
    for _ in range(data.draw(st.integers(0, 6))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(stream)))
    with contextlib.suppress(NbdError):
        negotiate(bytes(stream[:cut]) + data.draw(st.binary(max_size=60)), contexts=CONTEXT)
