"""The numbers of the NBD protocol, named by section of its specification.

Source: doc/proto.md of the NetworkBlockDevice project. All integers on the wire are big-endian.
"""

from enum import IntEnum, IntFlag
from typing import Final

# "Newstyle negotiation": the magic numbers of the greeting, options and replies, and its flags.
SERVER_MAGIC: Final = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC: Final = 0x49484156454F5054  # "IHAVEOPT"
OPTION_REPLY_MAGIC: Final = 0x3E889045565A9
FLAG_FIXED_NEWSTYLE: Final = 1 << 0
FLAG_NO_ZEROES: Final = 1 << 1

# "Transmission phase": the magic numbers of a request and of the two kinds of reply.
REQUEST_MAGIC: Final = 0x25609513
SIMPLE_REPLY_MAGIC: Final = 0x67446698
STRUCTURED_REPLY_MAGIC: Final = 0x668E33EF

REPLY_FLAG_DONE: Final = 1 << 0
REPLY_IS_ERROR: Final = 1 << 15
OPTION_REPLY_IS_ERROR: Final = 1 << 31


class Option(IntEnum):
    """Requests before the transmission phase: "Option types"."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class OptionReply(IntEnum):
    """Replies to an option: "Option reply types"."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = OPTION_REPLY_IS_ERROR + 1
    ERR_POLICY = OPTION_REPLY_IS_ERROR + 2
    ERR_INVALID = OPTION_REPLY_IS_ERROR + 3
    ERR_PLATFORM = OPTION_REPLY_IS_ERROR + 4
    ERR_TLS_REQD = OPTION_REPLY_IS_ERROR + 5
    ERR_UNKNOWN = OPTION_REPLY_IS_ERROR + 6
    ERR_SHUTDOWN = OPTION_REPLY_IS_ERROR + 7
    ERR_BLOCK_SIZE_REQD = OPTION_REPLY_IS_ERROR + 8
    ERR_TOO_BIG = OPTION_REPLY_IS_ERROR + 9


class Info(IntEnum):
    """Kinds of ``OptionReply.INFO``."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class ExportFlag(IntFlag):
    """The abilities of an export: "Transmission flags"."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    CAN_MULTI_CONN = 1 << 8


class Command(IntEnum):
    """Requests of the transmission phase: "Request types"."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


COMMAND_FLAG_FUA: Final = 1 << 0
COMMAND_FLAG_NO_HOLE: Final = 1 << 1
COMMAND_FLAG_REQ_ONE: Final = 1 << 3


class ReplyType(IntEnum):
    """Chunks of a structured reply: "Structured reply types"; errors have ``REPLY_IS_ERROR``."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = REPLY_IS_ERROR + 1
    ERROR_OFFSET = REPLY_IS_ERROR + 2


# The "error value" that concerns the connection, not one request.
ESHUTDOWN: Final = 108

# Meta contexts, and the flags that they give a run of bytes.
BASE_PREFIX: Final = "base:"
BASE_ALLOCATION: Final = "base:allocation"
STATE_HOLE: Final = 1 << 0
STATE_ZERO: Final = 1 << 1
DIRTY_BITMAP_PREFIX: Final = "qemu:dirty-bitmap:"
STATE_DIRTY: Final = 1 << 0

# "Terminating the transmission phase" leaves limits to both sides; these are this program's.
MAX_STRING_BYTES: Final = 4096  # the specification's own, for names and messages
MAX_OPTION_REPLY_BYTES: Final = 64 * 1024
MAX_OPTION_REPLIES: Final = 64
MAX_OPTION_BYTES: Final = 64 * 1024
MAX_OPTIONS: Final = 1024
MAX_STATUS_DESCRIPTORS: Final = 4096
MAX_STATUS_BYTES: Final = 16 * 1024 * 1024
MAX_REQUEST_BYTES: Final = (
    32 * 1024 * 1024
)  # every server accepts so much: "Block size constraints"
MAX_STATUS_REQUEST_BYTES: Final = 1 << 31

# The protocol has no time limits; these are this program's.
OPEN_TIMEOUT_S: Final = 30
"""To open one connection, from the first packet to the agreed export."""
SILENCE_TIMEOUT_S: Final = 300
"""For a server that owes a reply, to move a byte. A block job can stall for as long; Linux retries
a command to a SCSI disk or an NFS server for 180 s before it reports an error.
"""
