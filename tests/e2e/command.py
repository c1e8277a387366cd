"""The installed command in a process of its own, as an admin or a script runs it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

PROGRAM = Path(sys.executable).with_name("virtbackup")
ENDED_BY = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


def write_config(directory: Path, uri: str, hosts: list, **group: object) -> Path:
    """A configuration with one group, ``all``, and its target; returns the file."""
    target = Path(str(group.pop("target", directory / "target")))
    if target.parent == directory:
        target.mkdir(exist_ok=True)
    settings = {"target": str(target), "autostart": True, "hosts": hosts, **group}
    path = directory / "config.yml"
    path.write_text(yaml.safe_dump({"uri": uri, "threads": 2, "groups": {"all": settings}}))
    path.chmod(0o600)
    return path


def start(*words: object, **options: object) -> subprocess.Popen[str]:
    """Start the command; stdout and stderr are pipes of text."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm-256color"}
    return subprocess.Popen([PROGRAM, *map(str, words)], env=environment, **{**pipes, **options})


def virtbackup(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    process = start(*words)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def events(output: str) -> list[dict]:
    """The objects of ``--json``, one a line."""
    return [json.loads(line) for line in output.splitlines()]


def read_until(process: subprocess.Popen[str], kind: str, **fields: object) -> list[dict]:
    """Read JSON lines until an event of that kind, with these fields, has been said."""
    seen = []
    assert process.stdout is not None
    for line in process.stdout:
        seen.append(json.loads(line))
        if seen[-1]["event"] == kind and fields.items() <= seen[-1].items():
            return seen
    raise AssertionError(f"no {kind} in {seen}: {process.stderr and process.stderr.read()}")


def interrupt(process: subprocess.Popen[str], name: str) -> tuple[list[dict], str]:
    """Send a signal, wait for the end; the rest of the events, and stderr."""
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    return events(out), err
