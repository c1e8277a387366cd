"""Without arguments, `restore` asks on a terminal for all that it needs; elsewhere it says what."""

import subprocess
import sys

import pytest
import yaml

from fakes.stored_backup import DATE, StoredBackup
from terminal import on_terminal
from virtbackup_async.model.backup import Packager

DAY = 86_400
PROGRAM = [sys.executable, "-m", "virtbackup_async"]


@pytest.fixture
async def site(tmp_path):
    """A configuration, and two backups of ``web`` and one of ``db``; returns its command."""
    target = tmp_path / "target"
    kind = Packager("directory", {})
    for domain, date in (("web", DATE), ("web", DATE + DAY), ("db", DATE)):
        backup = StoredBackup(target, kind, domain, date)
        await backup.make(tmp_path / f"{domain}.raw")
    config = tmp_path / "config.yml"
    group = {"target": str(target), "hosts": ["r:.*"]}
    config.write_text(yaml.safe_dump({"uri": "test:///nowhere", "groups": {"main": group}}))
    config.chmod(0o600)
    return [*PROGRAM, "-c", config, "restore"]


def test_the_answers_lead_to_a_restored_backup(site, tmp_path):
    with on_terminal([*site, "--no-progress"], {"TZ": "UTC"}) as terminal:
        terminal.wait_for("web: 2 backups, newest of 2026-03-02 02:15:00, unverified")
        terminal.answer("Which guest", "wbe")
        terminal.wait_for("there is no backup of wbe, did you mean 'web'?")
        terminal.answer("Which guest", "web")
        terminal.wait_for("2026-03-01 02:15:00  unverified")
        terminal.answer("Which backup", "1999-01-01")
        terminal.wait_for("no backup of web at 1999-01-01")
        terminal.answer("Which backup", "2026-03-01")
        terminal.answer("Where to", str(tmp_path / "new"))
        name = "20260301-021500_3_web"
        terminal.wait_for(f"restore web@{name} {tmp_path / 'new'}")
        assert terminal.end() == 0, terminal.said
    assert (tmp_path / "new" / "web.raw").read_bytes() == (tmp_path / "web.raw").read_bytes()


def test_in_place_is_asked_for_as_always(site):
    with on_terminal([*site, "--no-progress"]) as terminal:
        terminal.answer("Which guest", "db")
        terminal.answer("Which backup", "")
        terminal.answer("Where to", "in-place")
        terminal.wait_for("--in-place")
        terminal.answer("Go on?", "n")
        assert terminal.end() == 130


def test_what_is_wrong_has_its_exit_code(site, tmp_path):
    (tmp_path / "target").rename(tmp_path / "gone")
    with on_terminal(site) as terminal:
        terminal.wait_for("virtbackup: ")
        assert terminal.end() == 22
    (tmp_path / "target").mkdir()
    with on_terminal(site) as terminal:
        terminal.wait_for("there is no backup to restore")
        assert terminal.end() == 12


@pytest.mark.parametrize("option", ["--yes", "--json"])
def test_a_script_is_not_asked(site, option):
    with on_terminal([*site, option]) as terminal:
        terminal.wait_for("missing argument 'DOMAIN[@DATE]'")
        assert terminal.end() == 2
    ended = subprocess.run(
        site, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 2
    assert "missing argument" in ended.stderr
