"""The library that lets calls of the C library fail, and its controls.

A process that is to meet errors is started with ``environment``; what it forks shares the state.
"""

import ctypes
import errno
import os
import subprocess
from pathlib import Path
from typing import Final

from msgspec import Struct

SOURCE: Final = Path(__file__).with_name("failing_disk.c")
_PATH_MAX: Final = 4096
_READS, _CHANGES, _NEEDS_ROOM = 1, 2, 4

# By the name of an error: which calls can give it.
KINDS: Final = {
    "EIO": _READS | _CHANGES,
    "ENOSPC": _NEEDS_ROOM,
    "EDQUOT": _NEEDS_ROOM,
    "EROFS": _CHANGES,
}


def build(directory: Path) -> Path:
    """Compile the library."""
    path = directory / "failing_disk.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(path), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return path


def environment(library: Path) -> dict[str, str]:
    """The environment of a process whose calls can fail."""
    return {**os.environ, "LD_PRELOAD": str(library)}


class _State(ctypes.Structure):
    _fields_ = [  # type: ignore[mutable-override]
        ("is_armed", ctypes.c_int),
        ("kinds", ctypes.c_int),
        ("code", ctypes.c_int),
        ("from_then", ctypes.c_int),
        ("at", ctypes.c_long),
        ("calls", ctypes.c_long),
        ("failed", ctypes.c_long),
        ("root", ctypes.c_char * _PATH_MAX),
        ("what", ctypes.c_char * 64),
        ("path", ctypes.c_char * _PATH_MAX),
    ]


class Fault(Struct, frozen=True):
    """Which call fails: the ``at``-th of those that can give the error, alone or all from then."""

    code: str
    at: int
    from_then: bool

    def __str__(self) -> str:
        return f"{self.code} {'from' if self.from_then else 'at'} call {self.at}"


class FailingDisk:
    """The controls, of a process that was started with the library."""

    def __init__(self, root: Path) -> None:
        address = ctypes.CDLL(None).failing_disk_state
        address.restype = ctypes.POINTER(_State)
        self._state = address().contents
        self._state.root = os.fsencode(root)

    def set(self, fault: Fault) -> None:
        """Choose the fault; nothing fails before ``arm``."""
        state = self._state
        state.kinds, state.code = KINDS[fault.code], getattr(errno, fault.code)
        state.from_then, state.at = fault.from_then, fault.at
        state.calls = state.failed = 0
        state.what = state.path = b""

    def arm(self, *, armed: bool = True) -> None:
        """Let calls fail from now on, or no more, in this process and all that it has forked."""
        self._state.is_armed = armed

    @property
    def calls(self) -> int:
        return self._state.calls

    @property
    def failed(self) -> str | None:
        """What failed first; None if nothing did."""
        if not self._state.failed:
            return None
        return f"{self._state.what.decode()} {os.fsdecode(self._state.path)}"
