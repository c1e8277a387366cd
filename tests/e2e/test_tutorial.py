"""docs/tutorial/first-backup.md: its commands work, in its order, and print what it shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.roots import sweep

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "tutorial" / "first-backup.md").read_text()
BLOCKS = re.compile(r"^```(sh|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Each machine and run has its own numbers, and widths of columns.
NUMBER = re.compile(r"\d[\d.:-]*( [KMG]iB| B)?")
INSTALL = re.compile(r"^(\./scripts/lib/system-packages\.sh|PATH=.*)\n", re.MULTILINE)


def plain(line):
    return " ".join(NUMBER.sub("N", line).split())


@pytest.fixture(autouse=True)
def no_guest_stays():
    yield
    sweep()


def test_each_command_works_and_prints_what_the_page_shows(tmp_path):
    blocks = BLOCKS.findall(TEXT)
    # This environment is installed already, and installing once more is no business of a test.
    commands = INSTALL.sub("", "".join(body for kind, body in blocks if kind == "sh"))
    assert "system-packages" not in commands
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PATH": path, "COLUMNS": "200", "TMPDIR": str(tmp_path)},
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    printed = {plain(line) for line in ended.stdout.splitlines()}
    shown = [line for kind, body in blocks if kind == "text" for line in body.splitlines()]
    assert shown
    assert [line for line in shown if plain(line) not in printed] == []
