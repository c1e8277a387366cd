"""An asyncio client of the NBD protocol.

::

    client       an export over one or several connections: reads, writes, block status
    connection   one socket, with or without TLS: sends requests, wakes who waits for replies
    handshake    the negotiation        } no input or output: bytes in, values out
    replies      the replies            }
    status       block status of a whole export, several meta contexts side by side
    export, constants                     values and numbers

It uses asyncio's transports, not anyio's streams, because only a ``BufferedProtocol`` receives
into memory that the caller owns, plain and under TLS alike. docs/reference/nbd.md says what is
spoken.
"""

from virtbackup_async.nbd.client.client import NbdClient, open_nbd
from virtbackup_async.nbd.protocol.export import Address, Export, TcpAddress, Tls, UnixAddress
from virtbackup_async.nbd.protocol.status import StatusRun, walk_status

__all__ = [
    "Address",
    "Export",
    "NbdClient",
    "StatusRun",
    "TcpAddress",
    "Tls",
    "UnixAddress",
    "open_nbd",
    "walk_status",
]
