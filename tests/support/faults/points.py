"""Fault points of a command, from outside: what it asks of libvirt, of files and of qemu-img.

Installed by ``command.py`` in the command's own process, before the command begins. Nothing in the
product knows of it: the functions of ``os`` that leave traces, the one door to libvirt, the reading
of what QEMU serves and the start of processes are wrapped. A point is passed before and after each
call::

    before rename definition        the definition's temporary file is durable, it has no name yet
    after snapshotCreateXML         the overlays exist, nothing else has happened

Names say what a file is for, never its path, so they are the same in every run. Where a name comes
again it gets a number; calls that poll are passed only the first time.
"""

import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process

from virtbackup_async.hypervisor.connection import Connection as LibvirtConnection
from virtbackup_async.images.pieces import Wanted
from virtbackup_async.images.sources.nbd import NbdReader

_LIBVIRT = {
    "lookupByName": "lookupByName",
    "agentSetResponseTimeout": "agentSetResponseTimeout",
    "getTime": "getTime",
    "snapshotCreateXML": "snapshotCreateXML",
    "fsFreeze": "fsFreeze",
    "fsThaw": "fsThaw",
    "backupBegin": "backupBegin",
    "_abort_backup": "abortJob",
    "blockCommit": "blockCommit",
    "blockJobInfo": "blockJobInfo",
    "blockJobAbort": "pivot",
    "_set_source": "updateDeviceFlags",
    "redefine": "redefine checkpoint",
    "delete": "delete checkpoint",
}
_ONCE = ("getTime", "blockJobInfo", "abortJob", "read ")
_DEV = re.compile(r"(?:[-_])(?P<dev>vd[a-z]|nvram)\.")
_ROLES = (
    (re.compile(r"\.json\.pending$"), "pending"),
    (re.compile(r"\.note$"), "note"),
    (re.compile(r"^\.virtbackup-.*\.tmp$"), "temporary file"),
    (re.compile(r"\.json$"), "definition"),
    (re.compile(r"\.part$"), "part"),
    (re.compile(r"\.vbk-[0-9a-f]+$"), "overlay"),
    (re.compile(r"\.scratch$"), "scratch"),
    (re.compile(r"^vbk-[0-9a-f]+\.sock$"), "socket"),
    (re.compile(r"^\d{8}-\d{6}_.*\.(tar|tar\.gz|qcow2|raw|zstd|fd)$"), "package"),
    (re.compile(r"\.xml$"), "domain XML"),
    (re.compile(r"\.(qcow2|raw|fd)$"), "image"),
    (re.compile(r"\.map$"), "map"),
    (re.compile(r"\.pack$"), "pack"),
    (re.compile(r"\.index$"), "index"),
    (re.compile(r"^repository$"), "repository"),
    (re.compile(r"^[0-9a-f]{24}$"), "lease"),
    (re.compile(r"^\.[0-9a-f]{16}$"), "temporary lease"),
)


class Points:
    """Tells the parent of each point, and waits there until it says go on."""

    def __init__(self, parent: Connection) -> None:
        self._parent = parent
        self._turn = threading.Lock()
        self._passed: Counter[str] = Counter()

    def at(self, name: str) -> None:
        """Pass a point; a parent that kills this process does it here."""
        with self._turn:
            self._passed[name] += 1
            times = self._passed[name]
            if times > 1 and name.partition(" ")[2].startswith(_ONCE):
                return
            told = name if times == 1 else f"{name} ({times})"
            self._parent.send(told)
            self._parent.recv()

    def around(self, what: str | None, call: Callable, *args: object, **options: object) -> object:
        """Call, between two points if there is something to say."""
        if what is None:
            return call(*args, **options)
        self.at(f"before {what}")
        result = call(*args, **options)
        self.at(f"after {what}")
        return result


def install(points: Points) -> None:
    """Wrap all that leaves traces."""
    _wrap_files(points)
    _wrap_libvirt(points)
    _wrap_exports(points)
    _wrap_processes(points)


def _role(path: object) -> str | None:
    """What a file is for: ``package vda``; None where it is no business of a backup."""
    name = Path(os.fsdecode(path).rstrip('"}')).name  # type: ignore[arg-type]
    for pattern, role in _ROLES:
        if pattern.search(name):
            dev = _DEV.search(name)
            return f"{role} {dev['dev']}" if dev else role
    return None


def _wrap_files(points: Points) -> None:
    def wrap(name: str, label: Callable[..., str | None]) -> None:
        original = getattr(os, name)

        def wrapped(*args: object, **options: object) -> object:
            return points.around(label(*args, **options), original, *args, **options)

        setattr(os, name, wrapped)

    def named(verb: str, path: object) -> str | None:
        role = _role(path)
        return role and f"{verb} {role}"

    def opened(path: object, flags: int, *_rest: object, **_options: object) -> str | None:
        return named("create", path) if flags & os.O_CREAT else None

    def removed(path: object, dir_fd: int | None = None) -> str | None:
        place = Path() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}")
        is_there = os.path.lexists(place / os.fsdecode(path))  # type: ignore[arg-type]
        return named("remove", path) if is_there else None

    def synced(fd: int) -> str | None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        return "sync directory" if path.is_dir() else named("sync", path)

    def read(fd: int, *_rest: object) -> str | None:
        return named("read", Path(f"/proc/self/fd/{fd}").readlink())

    wrap("open", opened)
    wrap("replace", lambda _old, new, **_options: named("rename", new))
    wrap("rename", lambda _old, new, **_options: named("rename", new))
    wrap("link", lambda _old, new, **_options: named("link", new))
    wrap("unlink", removed)
    wrap("fsync", synced)
    wrap("fdatasync", synced)
    wrap("preadv", read)


def _wrap_libvirt(points: Points) -> None:
    def wrap(method: str) -> None:
        original = getattr(LibvirtConnection, method)

        async def call(
            self: LibvirtConnection, what: str, function: Callable, *args: object
        ) -> object:
            name = _LIBVIRT.get(function.__name__)
            dev = next((arg for arg in args if re.fullmatch("vd[a-z]", str(arg))), None)
            label = f"{name} {dev}" if dev else name
            return await original(self, what, points.around, label, function, *args)

        setattr(LibvirtConnection, method, call)

    wrap("call")
    wrap("ask")


def _wrap_exports(points: Points) -> None:
    """What QEMU serves is read in worker threads."""
    original = NbdReader.read

    def read(self: NbdReader, wanted: Sequence[Wanted]) -> None:
        points.around("read export", original, self, wanted)

    NbdReader.read = read  # type: ignore[method-assign]


def _wrap_processes(points: Points) -> None:
    """``during`` is passed when the process has just been started."""
    start = anyio.open_process
    labels: dict[int, str] = {}

    async def started(argv: Sequence[str], **options: Any) -> Process:
        if any(word.endswith("thaw_guard.py") for word in argv):
            # It leaves no traces; tests/crash/test_frozen_guests.py has its deaths.
            return await start(argv, **options)
        label = f"{argv[0]} {argv[1]} {_role(argv[-1]) or 'file'}"
        points.at(f"before {label}")
        process = await start(argv, **options)
        if not labels:
            watch_end(type(process))
        labels[process.pid] = label
        points.at(f"during {label}")
        return process

    def watch_end(kind: type[Process]) -> None:
        wait = kind.wait

        async def waited(self: Process) -> int:
            returncode = await wait(self)
            label = labels.get(self.pid)
            if label and self.pid not in ended:
                ended.add(self.pid)
                points.at(f"after {label}")
            return returncode

        kind.wait = waited  # type: ignore[method-assign]

    ended: set[int] = set()
    anyio.open_process = started  # type: ignore[assignment]
