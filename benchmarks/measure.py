"""One run of a program, measured as a whole process with all its children.

Memory is read from ``/proc`` every 50 ms: ``ru_maxrss`` would count what the process that forked it
held at the time, and knows nothing of two children at once.
"""

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_LOOK_MS = 50
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class RunFailedError(Exception):
    """A program ended with something else than 0: what it was, and the end of what it said."""


@dataclass(frozen=True)
class Run:
    """What one run took, and what it printed on stdout."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    output: str


def run(argv: Sequence[str], env: Mapping[str, str] | None = None) -> Run:
    """Run a program to its end.

    Raises:
        RunFailedError: it failed.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started_s = time.monotonic()
        process = subprocess.Popen(
            argv,
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            env={**_plain_environment(), **(env or {})},
        )
        peak_bytes = _watch(process.pid)
        wall_s = time.monotonic() - started_s
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said = (_text(err) or _text(out))[-2000:].strip()
            raise RunFailedError(f"{' '.join(argv)} ended with {process.returncode}: {said}")
        return Run(wall_s, usage.ru_utime + usage.ru_stime, peak_bytes, _text(out))


def _plain_environment() -> dict[str, str]:
    """The environment without what changes how Python works, or an admin would not have set.

    With ``PYTHONDONTWRITEBYTECODE`` an editable installation compiles all of itself at each start.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _watch(pid: int) -> int:
    """Wait until the process has ended; return the most memory its tree was seen with."""
    peak_bytes = 0
    ended = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        while not poll.poll(_LOOK_MS):
            peak_bytes = max(peak_bytes, _tree_bytes(pid), _high_water_bytes(pid))
    finally:
        os.close(ended)
    return peak_bytes


def _tree_bytes(pid: int) -> int:
    """What the process and its children hold now; one that just ended counts nothing."""
    try:
        resident_pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [child for task in tasks for child in (task / "children").read_text().split()]
    except (OSError, IndexError):
        return 0
    return resident_pages * _PAGE_BYTES + sum(_tree_bytes(int(child)) for child in children)


def _high_water_bytes(pid: int) -> int:
    """The most that the process alone has held since it became this program."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else 0


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def stored_bytes(path: Path) -> int:
    """What a file or everything below a directory takes on the disk, holes left out."""
    files = [path] if path.is_file() else list(path.rglob("*"))
    return sum(file.lstat().st_blocks * 512 for file in files)
