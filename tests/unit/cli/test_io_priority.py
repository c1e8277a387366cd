"""cli/own_process.py, in processes of their own: a priority cannot be taken back."""

import subprocess
import sys

import pytest

PREPARE = """
import subprocess, sys, threading
from pathlib import Path
from virtbackup_async.cli.with_config import configured
from virtbackup_async.config.loading import load_config

configured(lambda: load_config(Path(sys.argv[1])), None, reports_as=sys.argv[2] or None)(print)
of_thread = []
thread = threading.Thread(target=lambda: of_thread.append(
    subprocess.check_output(["ionice", "-p", str(threading.get_native_id())], text=True)))
thread.start()
thread.join()
print(of_thread[0].strip(), "|", subprocess.check_output(["ionice"], text=True).strip())
"""


def priorities(tmp_path, written, told):
    """What a thread, and a program, that are started later have."""
    config = tmp_path / "config.yml"
    config.write_text(f"{written}\ngroups: {{g: }}\n")
    argv = [sys.executable, "-c", PREPARE, config, told]
    return subprocess.check_output(argv, text=True).strip().split(" | ")


@pytest.mark.parametrize("command", ["backup", "verify", "clean"])
def test_idle_is_for_all_that_is_started_later(tmp_path, command):
    assert priorities(tmp_path, "io_priority: idle", command) == ["idle", "idle"]


@pytest.mark.parametrize(
    ("written", "command"), [("", "backup"), ("io_priority: normal", "backup")]
)
def test_nothing_changes_unless_it_is_wanted(tmp_path, written, command):
    before = subprocess.check_output(["ionice"], text=True).strip()
    assert priorities(tmp_path, written, command) == [before, before]


def test_restore_never_steps_back(tmp_path):
    assert "idle" not in priorities(tmp_path, "io_priority: idle", "")
