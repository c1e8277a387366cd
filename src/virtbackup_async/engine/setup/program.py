"""The running program, and whether it will still exist tonight. Blocks."""

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
    """The running program.

    Attributes:
        argv: the words that start it again.
        path: the file that determines the program: the entry point, or the interpreter.
    """

    argv: tuple[str, ...]
    path: Path


def running_program(argv0: str, interpreter: str) -> Program:
    """Return the program by ``sys.argv[0]`` and ``sys.executable``.

    Links are not resolved: the next version changes a link's destination, but not the link.
    """
    if Path(argv0).name == "__main__.py":
        return Program((interpreter, "-m", _MODULE), Path(interpreter))
    found = argv0 if os.sep in argv0 else shutil.which(argv0) or argv0
    path = Path(found).absolute()
    return Program((str(path),), path)


def why_not_lasting(program: Program) -> str | None:
    """Return why a program might be missing tonight; None if it will stay."""
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
    """Return why root must not run a program: others could replace it; None if they cannot."""
    # The package that the entry point loads might be in another directory.
    for path in (program.path, Path(__file__)):
        found = distrust(path, path.stat())
        if found is not None:
            return f"{found.message}. {found.hint}"
    return None
