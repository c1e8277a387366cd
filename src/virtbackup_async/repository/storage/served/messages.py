"""The messages of a store connection: pure, no I/O.

::

    client                                  server
    Hello                         -->
                                  <--       Hello       the version, the abilities, the role
    Names 1, OpenFile 2, ...      -->                   any number at once, in any order
                                  <--       Part 1      as many as it takes
                                  <--       Done 1
                                  <--       Opened 2    a handle for further requests
                                  <--       Failed 3

Each request has a number of the client's, and gets any number of ``Part``, ``Named`` or ``Look``
and then one ``Done``, ``Opened``, ``Failed`` or last ``Part``. Requests with the same handle are
carried out in their order, others in any order. Data that is too long for one message is sent
before its request, as ``More`` with the request's number.

A message is a msgpack map whose key ``type`` names its kind. A reader ignores keys that it does not
know; a message of an unknown kind is an error, so new kinds come with a new ability. Names are
bytes, since a file system may have names that are not UTF-8.
"""

from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from virtbackup_async.repository.storage.served.frames import PIECE_BYTES, FrameError, frame

T = TypeVar("T")
VERSION: Final = 1
ABILITIES: Final = ("storage-1",)
"""``storage-1``: all verbs of ``Storage`` as of the first version."""
MAX_WHOLE_BYTES: Final = 65 << 20
"""The longest file that is read or written as a whole."""
MAX_NAMES: Final = 2048
"""The most names in one message."""

Number = Annotated[int, Meta(ge=0, lt=1 << 53)]
Handle = Annotated[int, Meta(ge=0, lt=1 << 31)]
Name = Annotated[bytes, Meta(max_length=4096)]
Step = Annotated[bytes, Meta(max_length=255)]
Piece = Annotated[bytes, Meta(max_length=PIECE_BYTES)]
Text = Annotated[str, Meta(max_length=4096)]
Kinds = Annotated[tuple[Text, ...], Meta(max_length=16)]
SomeNames = Annotated[tuple[Name, ...], Meta(max_length=MAX_NAMES)]


class Message(Struct, frozen=True, tag_field="type", tag=str.lower):
    """Any message."""


class Hello(Message, frozen=True):
    """The first message of each side.

    Attributes:
        version: of this protocol; each side speaks the lower one of both.
        abilities: what the side can do beyond that.
        program: the version of the program, for messages.
        root: how the server's messages name the target; empty for a client.
        append_only: whether this client may only add files.
    """

    version: Annotated[int, Meta(ge=1, lt=1 << 16)]
    abilities: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    program: Text = ""
    root: Text = ""
    append_only: bool = False


class Request(Message, frozen=True):
    """Any request.

    Attributes:
        id: differs from the numbers of all other requests that are under way.
    """

    id: Number


class Named_(Request, frozen=True):  # noqa: N801 -- not a message, only the requests below are
    """Any request about the file or directory of a name."""

    name: Name


class Held_(Request, frozen=True):  # noqa: N801 -- not a message, only the requests below are
    """Any request about what was opened."""

    handle: Handle


class More(Request, frozen=True):
    """Data that goes before the data of the request with this number."""

    data: Piece


class Ping(Request, frozen=True):
    """Show that the client is alive."""


class Names(Named_, frozen=True):
    """``Storage.names``."""

    kinds: Kinds


class Sizes(Request, frozen=True):
    """``Storage.sizes``."""

    names: SomeNames


class StatusOf(Named_, frozen=True):
    """``Storage.status``."""


class Exists(Named_, frozen=True):
    """``Storage.exists``."""


class OpenFile(Named_, frozen=True):
    """``Storage.open``."""


class OpenDirectory(Named_, frozen=True):
    """``Storage.open_directory``."""


class Hold(Named_, frozen=True):
    """``Storage.hold``."""


class ReadWhole(Named_, frozen=True):
    """``Storage.read``."""

    max_bytes: Number


class MakeDirectory(Named_, frozen=True):
    """``Storage.make_directory``."""


class SyncNames(Named_, frozen=True):
    """``Storage.sync_names``."""


class Replace(Named_, frozen=True):
    """``Storage.replace``."""

    data: Piece
    keep_owner: bool


class Rename(Named_, frozen=True):
    """``Storage.rename``."""

    new: Step


class PutNew(Named_, frozen=True):
    """``Storage.put_new``."""

    data: Piece


class Overwrite(Named_, frozen=True):
    """``Storage.overwrite``."""

    data: Piece


class Create(Named_, frozen=True):
    """``Storage.create``."""


class CreateHidden(Named_, frozen=True):
    """``Storage.create_hidden``."""


class Remove(Named_, frozen=True):
    """``Storage.remove``."""


class TakeLease(Named_, frozen=True):
    """``Storage.take_lease``."""

    content: Annotated[bytes, Meta(max_length=64 * 1024)]
    directories: Annotated[tuple[Name, ...], Meta(max_length=16)]


class LookAtLease(Named_, frozen=True):
    """Look at a lease; the client answers the ``Look`` with a ``Decision``."""


class Decision(Request, frozen=True):
    """Whether the lease of the ``Look`` with this number is dead; gets no answer of its own."""

    is_dead: bool


class Clock(Named_, frozen=True):
    """``Storage.clock``."""


class RemoveTemporary(Request, frozen=True):
    """``Storage.remove_temporary_files``."""

    names: SomeNames
    before_s: float


class FreeBytes(Request, frozen=True):
    """``Storage.free_bytes``."""


class KeepReserve(Request, frozen=True):
    """``Storage.keep_reserve``."""


class ReleaseReserve(Request, frozen=True):
    """``Storage.release_reserve``."""


class ReadAt(Held_, frozen=True):
    """Read a range of an open file; ``how`` is ``whole``, ``up_to`` or ``once``."""

    length: Annotated[int, Meta(ge=0, le=PIECE_BYTES)]
    offset: Number
    how: Text


class DirectoryNames(Held_, frozen=True):
    """``OpenDirectory.names``."""


class DirectoryRead(Held_, frozen=True):
    """``OpenDirectory.read``."""

    name: Step
    max_bytes: Number


class Append(Held_, frozen=True):
    """``append`` of a growing or a hidden file."""

    data: Piece


class Finish(Held_, frozen=True):
    """Finish a growing file, whose handle is closed with it, or a hidden file."""


class Publish(Held_, frozen=True):
    """Publish a hidden file, whose handle is closed with it.

    The server sends ``Named`` when it has its name, or might have it.
    """


class PublishExclusively(Held_, frozen=True):
    """Publish a hidden file under a free name; its handle is closed with it."""


class Discard(Held_, frozen=True):
    """Discard a growing or a hidden file; the handle stays until it is closed."""


class Refresh(Held_, frozen=True):
    """``LeaseFile.refresh``."""


class IsHeld(Held_, frozen=True):
    """``LeaseFile.is_held``."""


class Close(Held_, frozen=True):
    """Close what was opened: a lease is removed, an unfinished file is discarded."""


class Reply(Message, frozen=True):
    """Any answer; ``id`` is the request's."""

    id: Number


class Part(Reply, frozen=True):
    """A part of an answer: data, or names."""

    data: Piece = b""
    names: SomeNames = ()
    is_last: bool = False


class Named(Reply, frozen=True):
    """The file has its name, or might have it."""


class Look(Reply, frozen=True):
    """What is seen of a lease."""

    content: Annotated[bytes, Meta(max_length=64 * 1024)]
    modified_s: float
    is_locked: bool | None
    expiry_s: float


class Done(Reply, frozen=True):
    """The request was carried out; ``value`` as the verb returns it."""

    value: bool | int | float | None = None
    sizes: Annotated[tuple[int | None, ...], Meta(max_length=MAX_NAMES)] = ()


class Opened(Reply, frozen=True):
    """The handle of what was opened, or the status of a file."""

    handle: Handle = 0
    size_bytes: Number = 0
    version: Text = ""
    is_file: bool = True
    modified_s: float = 0.0


class Failed(Reply, frozen=True):
    """The request failed; ``failures.py`` has the kinds."""

    kind: Text
    message: Text
    hint: Text | None = None
    errno: int = 0


ServedRequest = (
    Hello | More | Ping | Names | Sizes | StatusOf | Exists | OpenFile | OpenDirectory | Hold
    | ReadWhole | MakeDirectory | SyncNames | Replace | Rename | PutNew | Overwrite | Create
    | CreateHidden | Remove | TakeLease | LookAtLease | Decision | Clock | RemoveTemporary
    | FreeBytes | KeepReserve | ReleaseReserve | ReadAt | DirectoryNames | DirectoryRead | Append
    | Finish | Publish | PublishExclusively | Discard | Refresh | IsHeld | Close
)  # fmt: skip
ServedReply = Hello | Part | Named | Look | Done | Opened | Failed

_encoder: Final = msgspec.msgpack.Encoder()
_requests: Final = msgspec.msgpack.Decoder(ServedRequest)
_replies: Final = msgspec.msgpack.Decoder(ServedReply)


def encode(message: Message) -> bytes:
    """Return the frame of a message."""
    return frame(_encoder.encode(message))


def decode_request(body: bytes) -> ServedRequest:
    """Return the message of a client; FrameError if it is none."""
    return _decode(_requests, body)


def decode_reply(body: bytes) -> ServedReply:
    """Return the message of a server; FrameError if it is none."""
    return _decode(_replies, body)


def _decode(decoder: "msgspec.msgpack.Decoder[T]", body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise FrameError(f"a message that cannot be understood: {error}") from error


def is_last(reply: Reply) -> bool:
    """Return whether an answer ends with this message."""
    return isinstance(reply, Done | Opened | Failed) or (isinstance(reply, Part) and reply.is_last)


def to_wire(name: str) -> bytes:
    """Return a name as messages have it."""
    return name.encode("utf-8", "surrogateescape")


def from_wire(name: bytes) -> str:
    """Return a name of a message."""
    return name.decode("utf-8", "surrogateescape")


def text(value: str) -> str:
    """Return a text that fits into a message."""
    return value.encode("utf-8", "replace").decode()[:4096]
