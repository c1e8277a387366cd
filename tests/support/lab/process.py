"""Runs the host's tools for the lab: one line of error where a tool fails.

The lab is synchronous and speaks to libvirt through ``virsh``: it shares neither an event loop nor
a libvirt connection with the code under test.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path


class LabError(Exception):
    """The lab cannot do what it was asked for: what failed, and what the tool said."""


def run(
    *argv: str | Path,
    timeout_s: float = 120,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a tool to its end and return its standard output.

    Raises:
        LabError: the tool is missing, failed, or took longer than ``timeout_s``.
    """
    command = [str(word) for word in argv]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout_s,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise LabError(f"{command[0]} is not installed: run scripts/test once") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(command)} took longer than {timeout_s:g} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise LabError(f"{' '.join(command)} failed with {done.returncode}: {said}")
    return done.stdout
