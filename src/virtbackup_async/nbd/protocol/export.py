"""A server's address, its export, and its messages."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct, field

from virtbackup_async.nbd.protocol.constants import (
    MAX_REQUEST_BYTES,
    MAX_STRING_BYTES,
    ExportFlag,
)

AUTHORITY_FILE: Final = "ca-cert.pem"
"""The authority that signs certificates, named as QEMU and libvirt name it."""


class UnixAddress(Struct, frozen=True):
    """A Unix socket; the kernel accepts paths of up to 107 bytes."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


class TcpAddress(Struct, frozen=True):
    """A TCP port; 10809 is the one registered for NBD."""

    host: str
    port: int = 10809

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


class Tls(Struct, frozen=True):
    """Encryption, which is required: a server without it is refused.

    Attributes:
        context: has the authority that must have signed the server's certificate.
        server_name: the name in that certificate.
    """

    context: ssl.SSLContext
    server_name: str


class BlockSizes(Struct, frozen=True):
    """The alignment and the limits of requests, in bytes: "Block size constraints"."""

    minimum: int = 1
    preferred: int = 4096
    maximum: int = MAX_REQUEST_BYTES


class Export(Struct, frozen=True):
    """An export, as the server describes it.

    Attributes:
        name: the requested name; empty for the server's default export.
        size_bytes: its length.
        flags: its abilities.
        block_sizes: the alignment and the limits of requests.
        contexts: the granted meta contexts, by their number on this connection.
        is_structured: whether replies are structured.
    """

    name: str
    size_bytes: int
    flags: ExportFlag
    block_sizes: BlockSizes = BlockSizes()
    contexts: Mapping[int, str] = field(default_factory=dict)
    is_structured: bool = False


def printable_message(sent: bytes) -> str:
    """Return a server's message as one printable line without a final period."""
    text = sent[:MAX_STRING_BYTES].decode(errors="replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()).rstrip(".")
