"""Which program runs, and whether it will be there tonight. Blocks."""

import os
import shutil
import tempfile
from pathlib import Path

from msgspec import Struct

from virtbackup_async.config.trust import distrust

_MODULE = "virtbackup_async"
_CACHES = frozenset({".cache", "cache"})
_TEMPORARY = ("/tmp", "/var/tmp", "/run", "/dev/shm")  # noqa: S108 -- nothing is written there


class Program(Struct, frozen=True):
    """The program that runs.

    Attributes:
        argv: what starts it again.
        path: the file that decides what is started: the entry point, or the interpreter.
    """

    argv: tuple[str, ...]
    path: Path


def running_program(argv0: str, interpreter: str) -> Program:
    """Return the program by ``sys.argv[0]`` and ``sys.executable``.

    A link stays one: what it leads to changes with the next version, the link does not.
    """
    if Path(argv0).name == "__main__.py":
        return Program((interpreter, "-m", _MODULE), Path(interpreter))
    found = argv0 if os.sep in argv0 else shutil.which(argv0) or argv0
    path = Path(found).absolute()
    return Program((str(path),), path)


def why_not_lasting(program: Program) -> str | None:
    """Return why a program may be gone tonight; None if it will stay."""
    if not os.access(program.path, os.X_OK):
        return f"{program.path} cannot be executed"
    temporary = {Path(place) for place in (*_TEMPORARY, tempfile.gettempdir())}
    for path in (program.path, program.path.resolve()):
        if any(path.is_relative_to(place) for place in temporary):
            return f"{path} is in a temporary directory"
        if not _CACHES.isdisjoint(path.parts):
            return f"{path} is in a cache"
    return None


def why_not_trusted(program: Program) -> str | None:
    """Return why root must not run a program: others could exchange it; None if they cannot."""
    # The package beside the entry point, which loads it, may be in another place.
    for path in (program.path, Path(__file__)):
        found = distrust(path, path.stat())
        if found is not None:
            return f"{found.message}. {found.hint}"
    return None
