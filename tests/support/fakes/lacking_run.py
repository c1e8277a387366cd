"""Runs commands on a ``FullSite`` in a process of its own, whose file system lacks something.

As a program: the site's directory, and commands; prints what came of them as JSON.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio

from fakes.full_site import FullSite
from virtbackup_async.events import BackupDone, BackupRemoved, PinChanged, VerifyDone
from virtbackup_async.files import lacks

SOURCE = Path(__file__).with_name("lacking.c")
_TOLD = (BackupDone, BackupRemoved, PinChanged, VerifyDone)


def build_shim(directory: Path) -> Path:
    """Compile what stands between a command and the file system."""
    shim = directory / "lacking.so"
    flags = ["-shared", "-fPIC", "-Wall", "-Werror", "-o", str(shim), str(SOURCE), "-ldl"]
    subprocess.run(["gcc", *flags], check=True)
    return shim


def lacking_environment(shim: Path, lack: str, place: Path) -> dict[str, str]:
    """The environment of a command for which what is below a place lacks something."""
    support = Path(__file__).parents[1]
    told = {"LD_PRELOAD": str(shim), "LACKING": lack, "LACKING_TARGET": str(place)}
    return {**os.environ, **told, "PYTHONPATH": f"{support.parents[1]}:{support}"}


def run_lacking(shim: Path, lack: str, site: FullSite, commands: Sequence[str]) -> dict:
    """Run commands on a site; return what they did, what failed, and what was told of the lack."""
    ended = subprocess.run(
        [sys.executable, "-m", "fakes.lacking_run", site.root, *commands],
        env=lacking_environment(shim, lack, site.root),
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(ended.stdout)


async def _main(*words: str) -> None:
    root, *commands = words
    site = FullSite(Path(root))
    done: dict[str, int] = {}
    for command in commands:
        await site.run(command)
        done[command] = sum(isinstance(event, _TOLD) for event in site.events)
    sys.stdout.write(
        json.dumps({"done": done, "failures": site.failures, "lacks": lacks.take_untold()})
    )


if __name__ == "__main__":
    anyio.run(_main, *sys.argv[1:])
