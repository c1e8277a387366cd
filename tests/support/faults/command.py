"""Runs the real command in a process of its own, and stops it at each of its fault points.

::

    parent                         the command
    ------                         -----------
                 <-- point name    stands still, with the thread that passes the point
    on_point(name, process)        (kills it, destroys the domain, copies an image aside ...)
                 go on -->

The process is forked from a server that has imported the program, and runs its ``main``: a command
costs what it does, not what Python takes to start.
"""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from faults.points import Points, install

STATE_VARIABLE = "VIRTBACKUP_STATE_DIRECTORY"
_TIMEOUT_S = 120
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload([
    "__main__", "anyio._backends._asyncio", "faults.points",
    *(f"virtbackup_async.cli.commands.{name}"
      for name in ("backup", "clean", "copy", "listing", "restore")),
])  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended (a signal is negative), what it said, and the points it passed."""

    returncode: int | None
    out: str
    err: str
    points: tuple[str, ...]


Process = BaseProcess
OnPoint = Callable[[str, Process], None]


def run_between(words: tuple[object, ...], on_point: OnPoint, *, state: object = None) -> Ended:
    """Run ``virtbackup WORD...`` to its end; ``on_point`` is called while it stands still.

    ``state`` is its state directory; None for the one of this process's environment.
    """
    state = str(state or os.environ[STATE_VARIABLE])
    ours, theirs = _server.Pipe()
    with tempfile.TemporaryDirectory() as directory, ours:
        said = [Path(directory) / name for name in ("out", "err")]
        process = _server.Process(
            target=_command, args=(theirs, said, state, [str(w) for w in words])
        )
        process.start()
        theirs.close()
        try:
            points = tuple(_points(ours, process, on_point))
            process.join(_TIMEOUT_S)
        finally:
            process.kill()
            process.join()
        out, err = (path.read_text() if path.exists() else "" for path in said)
    return Ended(process.exitcode, out, err, points)


def _points(connection: Connection, process: Process, on_point: OnPoint) -> list[str]:
    passed: list[str] = []
    # The pipe ends with the process.
    with suppress(EOFError, ConnectionError):
        while True:
            if not connection.poll(_TIMEOUT_S):
                raise AssertionError(f"the command hangs after {passed[-3:]}")
            passed.append(connection.recv())
            on_point(passed[-1], process)
            connection.send(None)
    return passed


def _command(parent: Connection, said: list[Path], state: str, words: list[str]) -> None:
    """The forked process: what ``virtbackup WORD...`` does."""
    from virtbackup_async.cli.main import main  # noqa: PLC0415 -- only here it is used

    os.setsid()
    # The fork server's environment is that of the first test.
    os.environ[STATE_VARIABLE] = state
    for descriptor, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    # A restore writes as many disks at once as there are CPUs: one, so that points have an order.
    os.cpu_count = lambda: 1
    install(Points(parent))
    sys.argv = ["virtbackup", *words]
    main()
