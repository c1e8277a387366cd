"""An asyncio client and server of the NBD protocol.

::

    client/client       an export over one or several connections: reads, writes, block status
    client/connection   one socket, with or without TLS: sends requests, wakes the waiting tasks
    client/status       block status of a whole export, for several meta contexts
    server/server       accepts clients
    server/connection   one client's socket: receives requests, starts a task for each
    server/session      answers requests out of a device
    server/device       what a device must be able to do
    protocol/handshake  the negotiation, client    }
    protocol/offer      the negotiation, server    } no input or output: bytes in, values out
    protocol/replies    replies, client            }
    protocol/incoming   requests, server           }
    protocol/answers    replies, server            }
    protocol/export, constants, steps                values and numbers

It uses asyncio's transports, not anyio's streams, because only a ``BufferedProtocol`` receives
into memory that the caller owns, with and without TLS. docs/reference/nbd.md describes which parts
of the protocol are used.
"""

from virtbackup_async.nbd.client.client import NbdClient, open_nbd
from virtbackup_async.nbd.client.status import StatusRun, walk_status
from virtbackup_async.nbd.protocol.export import Address, Export, TcpAddress, Tls, UnixAddress

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
