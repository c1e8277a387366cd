"""nbd/protocol/offer.py: what a client may ask for before it has an export, and what it gets."""

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.served import flags, go, option, string
from virtbackup_async.errors import NbdError, NbdProtocolError, NbdRefusedError
from virtbackup_async.nbd.protocol.constants import (
    MAX_OPTION_BYTES,
    MAX_OPTIONS,
    OPTION_MAGIC,
    ExportFlag,
    Info,
    Option,
    OptionReply,
)
from virtbackup_async.nbd.protocol.export import BlockSizes
from virtbackup_async.nbd.protocol.handshake import handshake
from virtbackup_async.nbd.protocol.offer import Agreed, Offered, offer
from virtbackup_async.nbd.protocol.steps import Receive, Send, StartTls

READ_ONLY = ExportFlag.HAS_FLAGS | ExportFlag.READ_ONLY
VDA = Offered(4096, READ_ONLY, "the first disk")
TWO = {"vda": VDA, "vdb": Offered(512, READ_ONLY)}


def offered(stream, exports=TWO, *, tls=False):
    """Let a client say ``stream``; return the agreement, the replies, and the TLS steps."""
    steps, answer, sent, started = offer(exports, tls=tls), None, b"", 0
    try:
        while True:
            step = steps.send(answer)
            answer = None
            if isinstance(step, Receive):
                assert 0 < step.length <= MAX_OPTION_BYTES
                if len(stream) < step.length:
                    raise EOFError
                answer, stream = stream[: step.length], stream[step.length :]
            elif isinstance(step, Send):
                sent += step.data
            else:
                started += 1
    except StopIteration as end:
        return end.value, replies(sent[18:]), started


def replies(sent):
    """The option replies in some bytes: option, kind, data."""
    found = []
    while sent:
        _, asked, kind, length = struct.unpack_from(">QIII", sent)
        found.append((asked, kind, sent[20 : 20 + length]))
        sent = sent[20 + length :]
    return found


def meet(client, server):
    """Let both sides talk to each other; return what each of them got."""
    to, ended = {client: b"", server: b""}, {}
    waiting = {client: None, server: None}
    while len(ended) < 2:
        for me, other in ((server, client), (client, server)):
            if me in ended:
                continue
            want = waiting[me]
            if want is not None and len(to[me]) < want:
                continue
            answer = None if want is None else to[me][:want]
            to[me] = to[me][want or 0 :]
            try:
                step = me.send(answer)
            except StopIteration as end:
                ended[me] = end.value
                continue
            waiting[me] = step.length if isinstance(step, Receive) else None
            if isinstance(step, Send):
                to[other] += step.data
    return ended[client], ended[server]


def contexts(kind, name, *queries):
    words = b"".join(map(string, queries))
    return option(kind, string(name) + struct.pack(">I", len(queries)) + words)


@pytest.mark.parametrize("name", ["vda", "vdb"])
def test_the_client_of_this_program_gets_what_it_asks_for(name):
    export, agreed = meet(handshake(name, ["base:allocation"], tls=False), offer(TWO, tls=False))
    assert (export.name, export.size_bytes, export.flags) == (name, TWO[name].size_bytes, READ_ONLY)
    assert export.contexts == {1: "base:allocation"}
    assert export.block_sizes == BlockSizes()
    assert agreed == Agreed(name, is_structured=True, reports_allocation=True)


def test_the_only_export_is_the_default_one():
    export, agreed = meet(handshake("", [], tls=False), offer({"vda": VDA}, tls=False))
    assert export.size_bytes == 4096
    assert agreed == Agreed("vda", is_structured=True, reports_allocation=False)


@pytest.mark.parametrize("name", ["", "vdc", "VDA", "vda ", "ä", "x" * 4096])
def test_other_names_are_unknown(name):
    with pytest.raises(NbdRefusedError, match="there is no such export"):
        meet(handshake(name, [], tls=False), offer(TWO, tls=False))


def test_all_exports_are_listed():
    agreed, found, _ = offered(flags() + option(Option.LIST) + option(Option.ABORT))
    assert agreed is None
    assert found == [
        (Option.LIST, OptionReply.SERVER, string("vda") + b"the first disk"),
        (Option.LIST, OptionReply.SERVER, string("vdb")),
        (Option.LIST, OptionReply.ACK, b""),
        (Option.ABORT, OptionReply.ACK, b""),
    ]


def test_an_export_is_described_without_being_taken():
    info = option(Option.INFO, string("vda") + struct.pack(">HHH", 2, Info.NAME, Info.DESCRIPTION))
    _, found, _ = offered(flags() + info + option(Option.ABORT))
    assert [data for _, kind, data in found if kind == OptionReply.INFO] == [
        struct.pack(">HQH", Info.EXPORT, 4096, READ_ONLY),
        struct.pack(">HIII", Info.BLOCK_SIZE, 1, 4096, 1 << 25),
        struct.pack(">H", Info.NAME) + b"vda",
        struct.pack(">H", Info.DESCRIPTION) + b"the first disk",
    ]


@pytest.mark.parametrize(("wanted", "padding"), [(1, 124), (3, 0)])
def test_an_old_client_gets_its_export_by_name(wanted, padding):
    steps = offer(TWO, tls=False)
    next(steps)
    steps.send(None)
    steps.send(flags(wanted))
    assert steps.send(option(Option.EXPORT_NAME, length=3)) == Receive(3)
    sent = steps.send(b"vdb")
    assert sent == Send(struct.pack(">QH", 512, READ_ONLY) + bytes(padding))
    with pytest.raises(StopIteration) as ended:
        steps.send(None)
    assert ended.value.value == Agreed("vdb", is_structured=False, reports_allocation=False)


def test_an_old_client_that_names_no_export_is_hung_up_on():
    with pytest.raises(NbdProtocolError, match="does not exist"):
        offered(flags() + option(Option.EXPORT_NAME, b"vdc"))


@pytest.mark.parametrize(
    ("queries", "granted"),
    [
        ([], True), (["base:"], True), (["base:allocation"], True),
        (["qemu:dirty-bitmap:x"], False), (["base:alloc"], False),
    ],
)  # fmt: skip
def test_contexts_are_listed(queries, granted):
    asked = contexts(Option.LIST_META_CONTEXT, "vda", *queries)
    stream = flags() + option(Option.STRUCTURED_REPLY) + asked + option(Option.ABORT)
    _, found, _ = offered(stream)
    assert (OptionReply.META_CONTEXT in [kind for _, kind, _ in found]) is granted


@pytest.mark.parametrize(
    ("asked", "reports"),
    [
        ([contexts(Option.SET_META_CONTEXT, "vda", "base:allocation")], True),
        ([contexts(Option.SET_META_CONTEXT, "vda", "base:")], False),
        ([contexts(Option.SET_META_CONTEXT, "vda")], False),
        ([contexts(Option.SET_META_CONTEXT, "vdb", "base:allocation")], False),
        ([contexts(Option.SET_META_CONTEXT, "vda", "base:allocation"),
          contexts(Option.SET_META_CONTEXT, "vda")], False),
    ],
)  # fmt: skip
def test_contexts_belong_to_an_export_and_the_last_request_counts(asked, reports):
    agreed, _, _ = offered(flags() + option(Option.STRUCTURED_REPLY) + b"".join(asked) + go("vda"))
    assert agreed == Agreed("vda", is_structured=True, reports_allocation=reports)


@pytest.mark.parametrize(
    "asked",
    [
        option(Option.LIST, b"x"),
        option(Option.STRUCTURED_REPLY, b"x"),
        option(Option.GO),
        option(Option.GO, b"\0\0"),
        option(Option.GO, string("vda")),
        option(Option.GO, string("vda") + b"\0\2\0\3"),
        option(Option.INFO, struct.pack(">I", 1 << 31) + b"vda"),
        contexts(Option.SET_META_CONTEXT, "vda", "base:allocation"),  # without structured replies
        option(Option.SET_META_CONTEXT, string("vda") + struct.pack(">I", 1 << 31)),
        option(Option.LIST_META_CONTEXT, string("vda") + struct.pack(">I", 0) + b"x"),
    ],
)
def test_nonsense_is_invalid_and_the_negotiation_goes_on(asked):
    agreed, found, _ = offered(flags() + asked + go("vda"))
    assert found[0][1] == OptionReply.ERR_INVALID
    assert agreed is not None


@pytest.mark.parametrize("number", [0, 4, 11, 99, 1 << 31])
def test_an_unknown_option_is_not_supported(number):
    agreed, found, _ = offered(flags() + option(number, b"what?") + go("vda"))
    assert found[0] == (number, OptionReply.ERR_UNSUP, b"")
    assert agreed is not None


@pytest.mark.parametrize(
    "stream",
    [
        flags(1 << 2),
        flags() + struct.pack(">QII", OPTION_MAGIC ^ 1, Option.LIST, 0),
        flags() + option(Option.GO, length=MAX_OPTION_BYTES + 1),
        flags() + option(Option.GO, length=(1 << 32) - 1),
        flags() + option(Option.LIST) * MAX_OPTIONS,
    ],
)
def test_a_client_that_breaks_the_protocol_is_hung_up_on(stream):
    with pytest.raises(NbdProtocolError):
        offered(stream)


def test_nothing_is_said_of_the_exports_before_tls():
    asked = [
        option(Option.LIST), option(Option.STRUCTURED_REPLY), go("vda"), option(99),
        contexts(Option.LIST_META_CONTEXT, "vda"),
    ]  # fmt: skip
    _, found, started = offered(flags() + b"".join(asked) + option(Option.ABORT), tls=True)
    assert [kind for _, kind, _ in found[:-1]] == [OptionReply.ERR_TLS_REQD] * len(asked)
    assert started == 0
    assert b"vd" not in b"".join(data for _, _, data in found)
    with pytest.raises(NbdProtocolError):
        offered(flags() + option(Option.EXPORT_NAME, b"vda"), tls=True)


def test_tls_starts_once_and_forgets_what_was_said_before():
    stream = flags() + option(Option.STARTTLS) + option(Option.STARTTLS) + go("vda")
    agreed, found, started = offered(stream, tls=True)
    assert agreed == Agreed("vda", is_structured=False, reports_allocation=False)
    assert started == 1
    assert found[1][1] == OptionReply.ERR_INVALID


def test_a_server_without_a_certificate_starts_no_tls():
    _, found, started = offered(flags() + option(Option.STARTTLS) + option(Option.ABORT))
    assert (found[0][1], started) == (OptionReply.ERR_POLICY, 0)


WORDS = st.one_of(
    st.binary(max_size=40),
    st.builds(option, st.sampled_from(Option), st.binary(max_size=24)),
    st.builds(go, st.sampled_from(["", "vda", "vdc", "ä" * 9])),
    st.builds(
        contexts,
        st.sampled_from([Option.SET_META_CONTEXT, Option.LIST_META_CONTEXT]),
        st.sampled_from(["vda", "x"]),
        st.sampled_from(["base:allocation", "base:", ""]),
    ),
    st.just(option(Option.STRUCTURED_REPLY)),
)


@given(st.binary(min_size=4, max_size=4) | st.just(flags()), st.lists(WORDS), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes_end_in_an_agreement_or_an_error(first, words, tls):
    with contextlib.suppress(EOFError, NbdError):
        agreed, _, started = offered(first + b"".join(words), tls=tls)
        assert agreed is None or agreed.name in TWO
        assert agreed is None or bool(started) is tls


def test_tls_is_a_step_of_its_own():
    steps = offer(TWO, tls=True)
    next(steps)
    steps.send(None)
    steps.send(flags())
    steps.send(option(Option.STARTTLS))
    assert steps.send(None) == StartTls()
