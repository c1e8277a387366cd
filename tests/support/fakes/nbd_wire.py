"""An NBD server's words, as bytes: for tests of the codec and for scripted peers."""

import struct

from virtbackup_async.nbd.protocol.constants import (
    OPTION_MAGIC,
    OPTION_REPLY_MAGIC,
    REPLY_FLAG_DONE,
    SERVER_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    Info,
    OptionReply,
    ReplyType,
)

GREETING = struct.pack(">QQH", SERVER_MAGIC, OPTION_MAGIC, 3)


def option_reply(option, kind, payload=b""):
    return struct.pack(">QIII", OPTION_REPLY_MAGIC, option, kind, len(payload)) + payload


def export_info(option, size, flags=1):
    return option_reply(option, OptionReply.INFO, struct.pack(">HQH", Info.EXPORT, size, flags))


def simple(cookie, error=0):
    return struct.pack(">IIQ", SIMPLE_REPLY_MAGIC, error, cookie)


def chunk(cookie, kind, payload=b"", *, done=False):
    flags = REPLY_FLAG_DONE if done else 0
    return (
        struct.pack(">IHHQI", STRUCTURED_REPLY_MAGIC, flags, kind, cookie, len(payload)) + payload
    )


def data(cookie, offset, content, *, done=False):
    return chunk(cookie, ReplyType.OFFSET_DATA, struct.pack(">Q", offset) + content, done=done)


def hole(cookie, offset, length, *, done=False):
    return chunk(cookie, ReplyType.OFFSET_HOLE, struct.pack(">QI", offset, length), done=done)


def status(cookie, context, descriptors, *, done=False):
    payload = struct.pack(">I", context) + b"".join(struct.pack(">II", *d) for d in descriptors)
    return chunk(cookie, ReplyType.BLOCK_STATUS, payload, done=done)


def error(cookie, errno, said=b"", *, kind=ReplyType.ERROR, tail=b"", done=True):
    payload = struct.pack(">IH", errno, len(said)) + said + tail
    return chunk(cookie, kind, payload, done=done)


def none(cookie):
    return chunk(cookie, ReplyType.NONE, done=True)
