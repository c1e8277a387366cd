"""Completion as the shell asks for it, and the manual page."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def complete(tmp_path):
    for domain in ("web", "web-test", "db", ".virtbackup-repository"):
        (tmp_path / "target" / domain).mkdir(parents=True)
    for stamp in ("20260701-030000", "20260702-030000", "20260702-040000"):
        name = f"{stamp}_3_web"
        disks = '{"vda": "", "vdb": ""}' if stamp.endswith("040000") else "{"
        (tmp_path / "target" / "web" / f"{name}.json").write_text(f'{{"disks": {disks}}}')
    (tmp_path / "other" / "mail").mkdir(parents=True)
    config = tmp_path / "config.yml"
    config.write_text(
        f"groups:\n  main: {{target: {tmp_path}/target}}\n  odd: {{target: {tmp_path}/other}}\n"
    )

    def complete(*words):
        typed = ["virtbackup", "-c", str(config), *words]
        environment = {
            **os.environ,
            "_VIRTBACKUP_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(typed),
            "COMP_CWORD": str(len(typed) - 1),
        }
        argv = [sys.executable, "-m", "virtbackup_async"]
        ended = subprocess.run(
            argv, env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert ended.stderr == ""
        return [line.split(",", 1)[1] for line in ended.stdout.splitlines() if line]

    return complete


def test_commands_options_groups_and_domains(complete):
    assert complete("ver") == ["verify"]
    assert complete("backup", "--no-") == ["--no-progress"]
    assert complete("backup", "m") == ["mail", "main"]
    assert complete("restore", "main", "web") == ["web", "web-test"]
    assert complete("restore", "odd", "m") == ["mail"]
    assert complete("restore", "") == ["db", "mail", "main", "odd", "web", "web-test"]
    assert complete("list", "-D", "d") == ["db"]


def test_dates_and_disks_of_the_typed_domain(complete):
    of_web = ["2026-07-01", "20260702-030000", "20260702-040000", "latest"]
    assert complete("pin", "web@2026-07") == ["web@2026-07-01"]
    assert complete("pin", "web", "@") == of_web, "as bash splits it"
    assert complete("pin", "main", "web", "@", "l") == ["latest"], "as bash splits it"
    assert complete("restore", "main", "web", "--date", "2026") == of_web[:-1]
    assert complete("restore", "web@latest", "--disk", "v") == ["vda", "vdb"]
    assert complete("export", "web", "v") == ["vda", "vdb"]
    assert complete("export", "main", "web", "") == ["vda", "vdb"]
    assert complete("export", "db", "") == []
    assert complete("forget", "web@l") == ["web@latest"]


def test_no_file_of_a_target_holds_up_a_prompt(complete, tmp_path):
    os.mkfifo(tmp_path / "target" / "web" / "20260703-030000_3_web.json")
    assert complete("export", "web", "v") == ["vda", "vdb"]
    assert complete("pin", "../web@") == []


def test_a_broken_configuration_offers_nothing(complete, tmp_path):
    (tmp_path / "config.yml").write_text("groups: [")
    assert complete("backup", "m") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed(shell):
    argv = [sys.executable, "-m", "virtbackup_async", "completion", shell]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"{shell}_complete" in ended.stdout


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_roff_has_nothing_to_say_about_the_manual_page():
    page = ROOT / "docs" / "man" / "virtbackup.1"
    argv = ["groff", "-man", "-Tutf8", "-ww", str(page)]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "restore" in ended.stdout
