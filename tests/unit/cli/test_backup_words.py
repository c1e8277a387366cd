"""The words that name a backup on the command line: how many there are decides what they mean."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from virtbackup_async.cli.commands import export, pin, restore
from virtbackup_async.cli.options import OneBackup, backup_of

NAME = "20260701-030000_3_web"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["web"], OneBackup(None, "web", "3d")),
        (["web@today"], OneBackup(None, "web@today", "3d")),
        (["main", "web"], OneBackup("main", "web", "3d")),
    ],
)
def test_one_word_is_a_name_and_two_are_group_and_name(words, found):
    assert backup_of(words, "3d") == found


@pytest.mark.parametrize("words", [[], ["a", "b", "c"]])
def test_other_numbers_of_words_are_refused(words):
    with pytest.raises(click.UsageError):
        backup_of(words, None)


@pytest.mark.parametrize(
    ("words", "in_place", "backup", "target"),
    [
        (["web", "/srv"], False, OneBackup(None, "web", None), Path("/srv")),
        (["main", "web", "/srv"], False, OneBackup("main", "web", None), Path("/srv")),
        (["web@3d"], True, OneBackup(None, "web@3d", None), None),
        (["main", "web"], True, OneBackup("main", "web", None), None),
    ],
)
def test_restore_tells_the_directory_from_the_name(words, in_place, backup, target):
    wanted = restore.wanted_of(words, None, **OPTIONS | {"in_place": in_place})
    assert (wanted.backup, wanted.target_dir) == (backup, target)


OPTIONS = {
    "disks": (),
    "define": False,
    "name": None,
    "start": False,
    "in_place": False,
    "remove_saved": False,
    "image_format": None,
    "discard_old": False,
    "yes": False,
    "allow_missing": False,
    "trusted": False,
}


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        (restore.command, ["web"], "Give either a TARGET_DIR or --in-place"),
        (restore.command, ["main", "web", "/srv", "--in-place"], "Give either a TARGET_DIR or"),
        (restore.command, [], "missing argument 'DOMAIN[@DATE]'"),
        (restore.command, ["a", "b", "c", "d"], "unexpected extra arguments (c)"),
        (export.command, ["web", "vda"], "missing argument: DOMAIN[@DATE], DISK and OUTPUT"),
        (pin.pin, ["a", "b", "c"], "unexpected extra arguments (c)"),
        (pin.unpin, [], "missing argument 'DOMAIN[@DATE]'"),
    ],
)
def test_wrong_numbers_of_words_are_usage_errors(command, words, said):
    with pytest.raises(click.UsageError) as caught:
        command.main(words, standalone_mode=False)
    assert said in caught.value.format_message()


@pytest.mark.parametrize(
    ("backup", "domain", "expected"),
    [
        (OneBackup(None, "web", "3d"), "web", OneBackup(None, "web", NAME)),
        (OneBackup(None, "web@3d", None), "web", OneBackup(None, "web", NAME)),
        (OneBackup(None, "web/web@3d", None), "web", OneBackup(None, "web/web", NAME)),
        (OneBackup("main", "web@3d", None), "web", OneBackup("main", "web", NAME)),
        (OneBackup(None, "a@b@today", None), "a@b", OneBackup(None, "a@b", NAME)),
        (OneBackup(None, NAME, None), "web", OneBackup(None, NAME, None)),
        (OneBackup(None, f"main/{NAME}", None), "web", OneBackup(None, f"main/{NAME}", None)),
        (OneBackup(None, "2@2026", None), "2", OneBackup(None, "2", NAME)),
    ],
)
def test_the_backup_that_was_asked_about_is_the_one_that_is_restored(backup, domain, expected):
    assert backup.pinned_down(domain, NAME) == expected


@pytest.fixture
def command(tmp_path):
    """Run a command on a target with one backup of web, in the groups main and other."""
    directory = tmp_path / "target" / "web"
    directory.mkdir(parents=True)
    definition = {
        "name": NAME, "domain_id": 3, "domain_name": "web", "domain_xml": "<domain/>",
        "disks": {"vda": f"{NAME}_vda.qcow2"}, "version": "0.5.6", "date": 1782874800,
        "packager": {"type": "directory", "opts": {}},
    }  # fmt: skip
    (directory / f"{NAME}.json").write_text(json.dumps(definition))
    (directory / f"{NAME}_vda.qcow2").write_bytes(b"x" * 70000)
    config = tmp_path / "config.yml"
    config.write_text(f"groups:\n  main: {{target: {tmp_path}/target, hosts: [web]}}\n")

    def run(*arguments):
        argv = [sys.executable, "-m", "virtbackup_async", "-c", str(config), *arguments]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
        )

    return run


def test_a_name_is_enough_for_restore_export_and_pin(command, tmp_path):
    assert command("pin", "web@2026-07").returncode == 0
    ended = command("restore", "web@latest", "out")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out" / f"{NAME}_vda.qcow2").stat().st_size == 70000
    ended = command("restore", "web", "two", "--disk", "vda,vdz", "--disk", "vda")
    assert (ended.returncode, "no disk vdz in backup" in ended.stderr) == (12, True)
    ended = command("unpin", NAME, "--json")
    assert json.loads(ended.stdout.splitlines()[1])["pinned"] is False


def test_a_group_without_a_domain_restores_nothing(command, tmp_path):
    ended = command("restore", "main", "web")
    assert (ended.returncode, (tmp_path / "web").exists()) == (12, False)
    assert ended.stderr == (
        "virtbackup: main is a group, not a domain. Name a domain of it, as main/web.\n"
    )
