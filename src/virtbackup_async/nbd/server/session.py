"""The answers to one client's requests, once it has an export.

A long read is answered in pieces, so that it costs no more memory than a short one. With structured
replies, each piece is a chunk, and pieces of several reads may alternate. A simple reply is one row
of bytes, so its pieces go out in one turn. If a later one fails, hanging up is the only way to tell
the client.
"""

import errno
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol, cast

import anyio

from virtbackup_async.errors import VirtBackupError
from virtbackup_async.nbd.protocol import answers
from virtbackup_async.nbd.protocol.constants import (
    MAX_STATUS_DESCRIPTORS,
    STATE_HOLE,
    STATE_ZERO,
    Command,
)
from virtbackup_async.nbd.protocol.incoming import Fault, Incoming, fault_of
from virtbackup_async.nbd.protocol.offer import ALLOCATION_ID, Agreed
from virtbackup_async.nbd.server.device import DataMap, Export, OnFailure, WritableDevice

_log = logging.getLogger(__name__)

PIECE_BYTES: Final = 1024 * 1024
"""The most that is in memory of one request."""
PIECES_AT_ONCE: Final = 8
"""How many pieces of one client's requests are in memory."""
_TOLD: Final = frozenset({errno.ENOSPC, errno.ENOMEM, errno.EPERM})

_Piece = tuple[int, int]
_Work = Callable[[], Awaitable[None]]


class Link(Protocol):
    """The connection to the client; each method raises ``NbdConnectionError`` if it is gone."""

    async def take(self, length: int) -> bytes: ...
    async def discard(self, length: int) -> None: ...
    async def send(self, *parts: bytes) -> None: ...
    async def wait_writable(self) -> None: ...
    def abort(self) -> None: ...


class Session:
    """Answers requests; several at once."""

    def __init__(self, agreed: Agreed, export: Export, link: Link, on_failure: OnFailure) -> None:
        self._agreed = agreed
        self._device = export.device
        self._flags = export.offered.flags
        self._link = link
        self._on_failure = on_failure
        self._places = anyio.Semaphore(PIECES_AT_ONCE, fast_acquire=True)
        # Whoever waits for a turn has a place already, so the one with the turn needs no other.
        self._turn = anyio.Lock()

    def fault_of(self, request: Incoming) -> Fault | None:
        """Return why the request must be refused; None if it can be answered."""
        reports = self._agreed.reports_allocation
        return fault_of(request, self._device.size_bytes, self._flags, reports_allocation=reports)

    async def answer(self, request: Incoming) -> None:
        """Answer a request that has no fault, and is no write.

        Raises:
            NbdConnectionError: the client is gone.
        """
        if request.command is Command.READ and self._agreed.is_structured:
            await self._read_in_chunks(request)
        elif request.command is Command.READ:
            await self._read_in_a_row(request)
        elif request.command is Command.BLOCK_STATUS:
            await self._report_status(request)
        else:
            await self._change(request)

    async def write(self, request: Incoming) -> None:
        """Take the data of a write that has no fault, write it, and answer; raises as ``answer``.

        The device gets it in pieces. The first that cannot be written is the last one.
        """
        device = cast("WritableDevice", self._device)
        fault: Fault | None = None
        for start, length in _pieces(request):
            data = await self._link.take(length)
            if fault is None:
                fault = await self._tried(partial(device.write, start, data), start, length)
        if fault is None and request.is_durable:
            fault = await self._tried(device.flush, request.offset, request.length)
        await self._end(request, fault)

    async def refuse(self, request: Incoming, fault: Fault) -> None:
        """Answer with an error; raises as ``answer``."""
        if self._agreed.is_structured:
            await self._send(answers.error(request.cookie, fault.errno, fault.reason))
        else:
            await self._send(answers.simple(request.cookie, fault.errno))

    async def _read_in_chunks(self, request: Incoming) -> None:
        last = request.offset + request.length
        for start, length in _pieces(request):
            async with self._places:
                await self._link.wait_writable()
                data, fault = await self._read(start, length, may_be_hole=True)
                if fault is not None:
                    await self.refuse(request, fault)
                    return
                is_last, cookie = start + length == last, request.cookie
                if data:
                    head = answers.data_head(cookie, start, length, is_last=is_last)
                    await self._send(head, data)
                else:
                    await self._send(answers.hole(cookie, start, length, is_last=is_last))

    async def _read_in_a_row(self, request: Incoming) -> None:
        pieces = list(_pieces(request))
        async with self._places:
            await self._link.wait_writable()
            data, fault = await self._read(*pieces[0])
            if fault is not None:
                await self.refuse(request, fault)
                return
            async with self._turn:
                await self._link.send(answers.simple(request.cookie), data)
                for piece in pieces[1:]:
                    data, fault = await self._read(*piece)
                    if fault is not None:
                        self._link.abort()
                        return
                    await self._link.send(data)

    async def _read(
        self, start: int, length: int, *, may_be_hole: bool = False
    ) -> tuple[bytes, Fault | None]:
        """Read a piece; no bytes stand for zeros, if it may be a hole."""
        data = b""

        async def read() -> None:
            nonlocal data
            if may_be_hole:
                found = await self._device.data_in(start, length, 1)
                if not found.data and found.end == start + length:
                    return
            data = await self._device.read(start, length)

        fault = await self._tried(read, start, length)
        return data, fault

    async def _report_status(self, request: Incoming) -> None:
        most = 1 if request.wants_one else MAX_STATUS_DESCRIPTORS // 2
        runs: list[tuple[int, int]] = []

        async def find() -> None:
            found = await self._device.data_in(request.offset, request.length, most)
            runs.extend(status_runs(request.offset, found))

        fault = await self._tried(find, request.offset, request.length)
        if fault is not None:
            await self.refuse(request, fault)
            return
        wanted = runs[:1] if request.wants_one else runs
        await self._send(answers.status(request.cookie, ALLOCATION_ID, wanted))

    async def _change(self, request: Incoming) -> None:
        device = cast("WritableDevice", self._device)

        async def change() -> None:
            if request.command is not Command.FLUSH:
                await device.write_zeroes(request.offset, request.length)
            if request.command is Command.FLUSH or request.is_durable:
                await device.flush()

        await self._end(request, await self._tried(change, request.offset, request.length))

    async def _end(self, request: Incoming, fault: Fault | None) -> None:
        if fault is not None:
            await self.refuse(request, fault)
        elif self._agreed.is_structured:
            await self._send(answers.done(request.cookie))
        else:
            await self._send(answers.simple(request.cookie))

    async def _send(self, *parts: bytes) -> None:
        async with self._turn:
            await self._link.send(*parts)

    async def _tried(self, work: _Work, offset: int, length: int) -> Fault | None:
        """Let the device work; return the fault if it fails."""
        try:
            await work()
        except (VirtBackupError, OSError) as error:
            self._on_failure(self._agreed.name, offset, length, error)
            return _fault_from(error)
        except Exception as error:  # noqa: BLE001 -- a defect costs this request, and no other client
            _log.exception("bytes %d to %d of %s", offset, offset + length, self._agreed.name)
            self._on_failure(self._agreed.name, offset, length, error)
            return Fault(errno.EIO, "unexpected error")
        return None


def _pieces(request: Incoming) -> list[_Piece]:
    end = request.offset + request.length
    return [
        (start, min(PIECE_BYTES, end - start)) for start in range(request.offset, end, PIECE_BYTES)
    ]


def status_runs(offset: int, found: DataMap) -> list[tuple[int, int]]:
    """Return lengths with their flags, from ``offset`` to the end of what is known."""
    runs: list[tuple[int, int]] = []
    for extent in found.data:
        _append(runs, extent.start - offset, STATE_HOLE | STATE_ZERO)
        _append(runs, extent.length, 0)
        offset = extent.end
    _append(runs, found.end - offset, STATE_HOLE | STATE_ZERO)
    return runs


def _append(runs: list[tuple[int, int]], length: int, flags: int) -> None:
    if length:
        runs.append((length, flags))


def _fault_from(error: VirtBackupError | OSError) -> Fault:
    if isinstance(error, VirtBackupError):
        return Fault(errno.EIO, error.message)
    number = error.errno if error.errno in _TOLD else errno.EIO
    return Fault(number, error.strerror or "input or output failed")
