"""Without a configuration, and with an empty one, each command names both ways to one."""

import subprocess
import sys

import pytest

from virtbackup_async.cli.commands.config import ConfigCommands
from virtbackup_async.cli.commands.key import KeyCommands
from virtbackup_async.cli.main import virtbackup

ARGUMENTS = {
    "backup": (),
    "copy": ("--to", "/nowhere"),
    "restore": ("web", "/nowhere"),
    "serve": ("web",),
    "export": ("web", "vda", "/nowhere/vda.raw"),
    "clean": (),
    "pin": ("web",),
    "unpin": ("web",),
    "forget": ("web@latest",),
    "accept": ("web",),
    "doctor": (),
    "verify": (),
    "repair": (),
    "list": (),
    "show": ("web",),
    "stats": (),
    "status": (),
    "log": (),
    "check": (),
    "diff": ("web", "web"),
    "report": ("--html", "/nowhere/report.html"),
    "config check": (),
    "config migrate": (),
    "systemd install": ("--dry-run",),
    "key list": (),
    "key add": ("--new-key-file", "/nowhere/key"),
    "key remove": ("1234",),
    "key rotate": (),
    "key paper": (),
}
# They need none, or make one.
NEED_NONE = {
    *("init", "help", "completion", "config example", "config schema", "systemd", "key"),
    *("store-server", "config protect"),
}


def commands():
    names = [name for name in virtbackup.list_commands(None) if name != "config"]
    below = {"config": ConfigCommands, "key": KeyCommands}
    return [*names, *(f"{group} {name}" for group in below for name in below[group].entries)]


NEEDING = sorted({*commands(), "systemd install"} - NEED_NONE)


def test_each_command_is_known_here():
    assert set(NEEDING) <= set(ARGUMENTS)


@pytest.mark.parametrize(
    ("name", "text"),
    [*((name, None) for name in NEEDING), ("backup", ""), ("doctor", "# nothing\n")],
)
def test_both_ways_to_a_configuration_are_named(tmp_path, name, text):
    path = tmp_path / "config.yml"
    if text is not None:
        path.write_text(text)
    words = [*name.split(), *ARGUMENTS[name]]
    ended = subprocess.run(
        [sys.executable, "-m", "virtbackup_async", "-c", str(path), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = ended.stdout + ended.stderr
    # Of a check, 2 says CRITICAL and 3 that nobody knows.
    assert ended.returncode == (3 if name == "check" else 2), said
    assert "virtbackup init" in said
    assert "virtbackup config example" in said
