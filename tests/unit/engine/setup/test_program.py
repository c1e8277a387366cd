"""Which program runs, whether it stays, and whether root may run it."""

import sys
from pathlib import Path

import pytest

from virtbackup_async.engine.setup.program import (
    Program,
    running_program,
    why_not_lasting,
    why_not_trusted,
)

INTERPRETER = "/usr/bin/python3"


def test_an_entry_point_is_started_by_its_path(monkeypatch, tmp_path):
    entry = tmp_path / "bin" / "virtbackup"
    entry.parent.mkdir()
    entry.touch(mode=0o755)
    for argv0 in (str(entry), "bin/virtbackup", "virtbackup"):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PATH", str(entry.parent))
        assert running_program(argv0, INTERPRETER) == Program((str(entry),), entry)


def test_a_link_stays_one(tmp_path):
    (tmp_path / "1.0").touch(mode=0o755)
    link = tmp_path / "virtbackup"
    link.symlink_to("1.0")
    assert running_program(str(link), INTERPRETER).argv == (str(link),)


def test_a_module_is_started_as_one():
    program = running_program("/x/virtbackup_async/__main__.py", INTERPRETER)
    assert program.argv == (INTERPRETER, "-m", "virtbackup_async")
    assert program.path == Path(INTERPRETER)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nowhere/virtbackup", "cannot be executed"),
        ("no-program", "cannot be executed"),
        ("cache/uv/bin/virtbackup", "is in a"),
        ("bin/virtbackup", "is in a temporary directory"),
    ],
)
def test_a_program_that_will_be_gone_is_told(tmp_path, path, reason):
    entry = tmp_path / path
    if entry.is_relative_to(tmp_path):
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.touch(mode=0o755 if entry.name == "virtbackup" else 0o644)
    assert reason in (why_not_lasting(Program((str(entry),), entry)) or "")


def test_a_cache_is_no_place_to_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("virtbackup_async.engine.setup.program._TEMPORARY", ())
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/nowhere")
    entry = tmp_path / ".cache" / "uv" / "virtbackup"
    entry.parent.mkdir(parents=True)
    entry.touch(mode=0o755)
    link = tmp_path / "virtbackup"
    link.symlink_to(entry)
    for path in (entry, link):
        assert "is in a cache" in (why_not_lasting(Program((str(path),), path)) or "")


def test_an_installed_program_stays():
    path = Path("/bin/sh")
    assert why_not_lasting(Program((str(path),), path)) is None


def test_root_runs_no_program_that_others_can_exchange(tmp_path):
    path = Path(sys.executable)
    assert why_not_trusted(Program((str(path),), path)) is None
    entry = tmp_path / "virtbackup"
    entry.touch(mode=0o755)
    tmp_path.chmod(0o777)
    reason = why_not_trusted(Program((str(entry),), entry))
    assert reason is not None
    assert "others can write to" in reason
