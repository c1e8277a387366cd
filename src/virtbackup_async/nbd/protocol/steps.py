"""The steps of a negotiation, which a generator yields to whoever has the connection.

So a connection, a test and a fuzzer drive client and server alike.
"""

from collections.abc import Generator
from typing import TypeVar

from msgspec import Struct

T = TypeVar("T")


class Send(Struct, frozen=True):
    """Write these bytes; the generator expects no answer."""

    data: bytes


class Receive(Struct, frozen=True):
    """Read exactly so many bytes, and send them into the generator."""

    length: int


class StartTls(Struct, frozen=True):
    """Send and receive all further bytes through TLS."""


Step = Send | Receive | StartTls
Negotiation = Generator[Step, bytes, T]
