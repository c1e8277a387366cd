"""Leases in an object store: written again every ten minutes, and aged by the store's clock.

::

    lease     the note that others read, and a last line: the holder, a number and its kernel
    refresh   read it; if it is this holder's, write it with the next number, if it is still
              that one
    dead      not written for a day, by the store's clock; whoever breaks it writes over it first,
              if it is still that one, so that of two one does

An abstract socket with the holder's name shows the processes of this host that the holder is alive:
the kernel takes it back when the holder ends. Nobody connects to it.

A holder whose lease was broken must never have it again. Where the store cannot write on a
condition, a holder that stood still between reading and writing could: so it also compares the
times of two writes, and takes itself for dead if a day lies between them.
"""

import errno
import re
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from virtbackup_async.errors import StorageError
from virtbackup_async.repository.storage.interface import LeaseLook
from virtbackup_async.repository.storage.objects.answers import Meta
from virtbackup_async.repository.storage.objects.calls import ObjectCalls
from virtbackup_async.repository.storage.this_host import kernel_id

EXPIRY_S: Final = 24 * 3600.0
REFRESH_S: Final = 600.0
_PROMPT_S: Final = 120.0
_MAX_BYTES: Final = 4096
_LAST_LINE: Final = re.compile(
    rb"\n([0-9a-f]{24})-[0-9]{1,12}-(([0-9a-f]{32})-[0-9]{1,20})\n\Z", re.DOTALL
)


class ObjectLease:
    """A ``LeaseFile``."""

    def __init__(
        self, calls: ObjectCalls, name: str, where: str, content: bytes, alone: str | None = None
    ) -> None:
        """Take a lease that nobody holds.

        Args:
            calls: of the store.
            name: of the lease.
            where: its name in messages.
            content: the note for others.
            alone: something that only one process of this host can hold, in place of a condition
                of the store.

        Raises:
            FileExistsError: somebody holds it.
            StorageError: it cannot be taken.
        """
        self.where = where
        self._calls = calls
        self._name = name
        self._content = content
        self._holder = secrets.token_hex(12)
        self._number = 0
        self._kernel = kernel_id()
        self._is_broken = False
        self._refreshed_s = since_boot_s()
        self._signs = [_sign(self._holder, where)]
        try:
            if alone is not None:
                self._signs.append(_sign(alone, where))
            self._meta: Meta = calls.put_new(name, [self._bytes()])
        except BaseException:
            self._close()
            raise

    def refresh(self) -> None:
        if since_boot_s() - self._refreshed_s >= REFRESH_S:
            with suppress(StorageError):
                self._refresh()

    def is_held(self) -> bool:
        return not self._is_broken and self._find() is not None

    def remove(self) -> None:
        with suppress(StorageError):
            if self.is_held():
                self._calls.delete(self._name)
        self._close()

    def _close(self) -> None:
        for sign in self._signs:
            sign.close()

    def _refresh(self) -> None:
        found = self._find()
        if found is None:
            self._is_broken = True
            return
        begun_s = since_boot_s()
        self._number += 1
        written = self._calls.put_if(self._name, self._bytes(), found.e_tag)
        if written is None:
            return  # broken, or an answer was lost: the next one finds out
        if written.modified_s - self._meta.modified_s >= EXPIRY_S:
            self._is_broken = True
        self._meta, self._refreshed_s = written, begun_s

    def _find(self) -> Meta | None:
        """Return the facts about the lease; None if it is gone or another holder's."""
        found = self._calls.get(self._name, _MAX_BYTES)
        line = None if found is None else _LAST_LINE.search(found.data)
        is_own = line is not None and line[1] == self._holder.encode()
        return found.meta if found is not None and is_own else None

    def _bytes(self) -> bytes:
        return self._content + _last_line(self._holder, self._number, self._kernel)


class HeldHere:
    """A ``HeldDirectory`` that the processes of this host alone respect."""

    def __init__(self, sign: socket.socket) -> None:
        self.close = sign.close


def hold_here(name: str) -> HeldHere | None:
    """Hold something, unless another process of this host does."""
    try:
        return HeldHere(_sign(name, name))
    except FileExistsError:
        return None


def remove_lease_if(
    calls: ObjectCalls, name: str, where: str, is_dead: Callable[[LeaseLook], bool]
) -> None:
    """Look at a lease, and remove it if it is dead: ``Storage.remove_lease_if``."""
    found = calls.get(name, _MAX_BYTES)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", where)
    content = _LAST_LINE.sub(b"", found.data)
    is_locked = _is_held_here(found.data)
    look = LeaseLook(content, found.meta.modified_s, is_locked, expiry_s=EXPIRY_S)
    if not is_dead(look):
        return
    begun_s = since_boot_s()
    stamp = _last_line(secrets.token_hex(12), 0, kernel_id())
    if calls.put_if(name, stamp, found.meta.e_tag) is None:
        return
    # The stamp is a living lease for others, for a day: only who wrote it may remove it, and soon.
    if since_boot_s() - begun_s < _PROMPT_S:
        calls.delete(name)


def _is_held_here(data: bytes) -> bool | None:
    """Return whether a process of this host holds a lease; None if that cannot be seen."""
    line = _LAST_LINE.search(data)
    if line is None:
        return None
    here = kernel_id().encode()
    if line[2] == here:
        return _is_taken(_address(line[1].decode()))
    # Another network of this kernel may have the holder; another start of it, or another host, is
    # told from this host by the note.
    return None if here.startswith(line[3]) else False


def _address(holder: str) -> bytes:
    return b"\0virtbackup-lease-" + holder.encode()


def _sign(name: str, where: str) -> socket.socket:
    """Return a socket that nobody else on this host can have, as long as it is open."""
    sign = socket.socket(socket.AF_UNIX)
    try:
        sign.bind(_address(name))
    except OSError as error:
        sign.close()
        raise FileExistsError(errno.EEXIST, "File exists", where) from error
    return sign


def _is_taken(address: bytes) -> bool:
    with socket.socket(socket.AF_UNIX) as sign:
        try:
            sign.bind(address)
        except OSError:
            return True
        return False


def _last_line(holder: str, number: int, kernel: str) -> bytes:
    return f"\n{holder}-{number}-{kernel}\n".encode()


def since_boot_s() -> float:
    """Return the seconds since this host was started, those in which it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
