"""nbd/protocol/incoming.py and answers.py: every request is answered, refused, or ends it all."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.served import request
from virtbackup_async.errors import NbdProtocolError
from virtbackup_async.nbd.protocol import answers
from virtbackup_async.nbd.protocol.constants import Command, ExportFlag
from virtbackup_async.nbd.protocol.incoming import HEADER_BYTES, fault_of, parse
from virtbackup_async.nbd.protocol.replies import ReplyParser
from virtbackup_async.nbd.protocol.request import Request

SIZE = 1 << 40
READ_ONLY = ExportFlag.HAS_FLAGS | ExportFlag.READ_ONLY
WRITABLE = (
    ExportFlag.HAS_FLAGS | ExportFlag.SEND_FLUSH | ExportFlag.SEND_FUA
    | ExportFlag.SEND_TRIM | ExportFlag.SEND_WRITE_ZEROES
)  # fmt: skip
MOST = 1 << 25


def fault(command, offset=0, length=1, *, flags=0, export=WRITABLE, status=True):
    found = fault_of(
        parse(request(command, offset, length, flags=flags)),
        SIZE, export, reports_allocation=status,
    )  # fmt: skip
    return found and found.errno


def test_a_request_of_the_client_is_understood():
    sent = Request(Command.READ, 7, 1 << 33, 512, flags=1).header
    found = parse(sent)
    assert (found.command, found.cookie, found.offset) == (Command.READ, 7, 1 << 33)
    assert (found.length, found.data_bytes, found.is_durable) == (512, 0, True)


def test_only_a_write_has_data():
    for command in Command:
        expected = 512 if command is Command.WRITE else 0
        assert parse(request(command, 0, 512)).data_bytes == expected


@pytest.mark.parametrize(
    "header",
    [request(0, magic=0), request(0, magic=0x25609514), request(Command.WRITE, 0, MOST + 1),
     request(Command.WRITE, 0, (1 << 32) - 1)],
)  # fmt: skip
def test_what_cannot_be_skipped_ends_the_connection(header):
    with pytest.raises(NbdProtocolError):
        parse(header)


@pytest.mark.parametrize("command", Command)
def test_a_writable_export_takes_every_command(command):
    assert fault(command, 512, 512) is None
    assert fault(command, 512, 512, flags=1) is None


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        (errno.EINVAL, {"command": 99}),
        (errno.EINVAL, {"command": 5}),  # CACHE
        (errno.EPERM, {"command": Command.WRITE, "export": READ_ONLY}),
        (errno.EPERM, {"command": Command.TRIM, "export": READ_ONLY}),
        (errno.EPERM, {"command": Command.WRITE_ZEROES, "export": READ_ONLY}),
        (errno.EINVAL, {"command": Command.FLUSH, "export": READ_ONLY}),
        (errno.EINVAL, {"command": Command.READ, "flags": 4}),
        (errno.EINVAL, {"command": Command.READ, "flags": 8}),
        (errno.EINVAL, {"command": Command.WRITE_ZEROES, "flags": 16}),
        (None, {"command": Command.WRITE_ZEROES, "flags": 2}),
        (None, {"command": Command.BLOCK_STATUS, "flags": 8}),
        (errno.EINVAL, {"command": Command.BLOCK_STATUS, "status": False}),
        (errno.EINVAL, {"command": Command.READ, "length": 0}),
        (errno.EINVAL, {"command": Command.READ, "length": MOST + 1}),
        (None, {"command": Command.READ, "length": MOST}),
        (None, {"command": Command.BLOCK_STATUS, "length": (1 << 32) - 1}),
        (None, {"command": Command.READ, "offset": SIZE - 1}),
        (errno.EINVAL, {"command": Command.READ, "offset": SIZE}),
        (errno.EINVAL, {"command": Command.READ, "offset": (1 << 64) - 1}),
        (errno.EINVAL, {"command": Command.READ, "offset": SIZE - 1, "length": 2}),
        (errno.ENOSPC, {"command": Command.WRITE, "offset": SIZE - 1, "length": 2}),
    ],
)
def test_what_an_export_cannot_do_is_refused(expected, arguments):
    assert fault(**arguments) == expected


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES), st.sampled_from([0, 28]))
def test_any_header_is_understood_or_ends_the_connection(header, keep):
    header = request(0)[:4] + header[4:] if keep else header
    try:
        found = parse(header)
    except NbdProtocolError:
        return
    assert found.data_bytes <= MOST
    refused = fault_of(found, SIZE, WRITABLE, reports_allocation=True)
    if refused is None and found.command not in {Command.FLUSH, Command.DISC}:
        assert 0 <= found.offset < found.offset + found.length <= SIZE


CHUNKS = st.lists(st.tuples(st.booleans(), st.integers(1, 900)), min_size=1, max_size=6)


@given(CHUNKS, st.randoms(use_true_random=False))
def test_the_client_understands_every_reply_to_a_read(chunks, rng):
    length = sum(size for _, size in chunks)
    content, offset, sent = bytearray(), 4096, []
    for number, (is_hole, size) in enumerate(chunks):
        at, last = offset + len(content), number == len(chunks) - 1
        data = bytes(size) if is_hole else rng.randbytes(size)
        sent.append(
            answers.hole(5, at, size, is_last=last)
            if is_hole
            else answers.data_head(5, at, size, is_last=last) + data
        )
        content += data
    target = bytearray(length)
    done = received(Request(Command.READ, 5, offset, length, memoryview(target)), sent)
    assert done.error is None
    assert target == content


def test_the_client_understands_all_other_replies():
    status = received(
        Request(Command.BLOCK_STATUS, 5, 0, 10), [answers.status(5, 1, [(4, 3), (6, 0)])]
    )
    assert status.statuses == {1: ((4, 3), (6, 0))}
    assert received(Request(Command.FLUSH, 5, 0, 0), [answers.done(5)]).error is None
    assert received(Request(Command.FLUSH, 5, 0, 0), [answers.simple(5)]).error is None
    lost = received(Request(Command.READ, 5, 0, 9), [answers.error(5, errno.EIO, "lost")])
    assert lost.error.errno == errno.EIO
    assert "lost" in lost.error.message


def received(asked, sent):
    """Let the client's parser read the replies; return the request that is done."""
    finished = []
    parser = ReplyParser([1], finished.append, is_structured=True)
    parser.expect(asked)
    stream = b"".join(sent)
    while stream:
        view = parser.buffer()
        now = min(len(view), len(stream))
        view[:now] = stream[:now]
        stream = stream[now:]
        parser.filled(now)
    assert finished == [asked]
    return asked
