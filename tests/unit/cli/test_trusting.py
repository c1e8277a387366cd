"""``--trust-definition`` as typed: a way to the disks of a backup whose definition is damaged."""

import json
import subprocess
import sys

import pytest
import yaml

from fakes.stored_backup import StoredBackup
from virtbackup_async.model.backup import Packager


@pytest.fixture
async def stored(tmp_path):
    """The only backup there is, with a flipped bit in the domain's XML."""
    stored = await StoredBackup(tmp_path / "t", Packager("zstd")).make(tmp_path / "image")
    stored.path.write_bytes(stored.path.read_bytes().replace(b"<domain/>", b"<domaio/>"))
    groups = {"main": {"target": str(tmp_path / "t"), "hosts": ["web"]}}
    (tmp_path / "config.yml").write_text(yaml.safe_dump({"groups": groups}))
    return stored


@pytest.fixture
def command(tmp_path):
    def run(*arguments):
        argv = [sys.executable, "-m", "virtbackup_async", "-c", "config.yml", *arguments]
        return subprocess.run(
            argv, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    return run


async def test_damaged_definition_is_told_and_never_used_unasked(stored, command):
    for arguments in (
        ("list",),
        ("stats",),
        ("verify",),
        ("restore", "main", "web", "out"),
        ("export", "main", "web", "vda", "out.qcow2"),
        ("pin", "main", "web"),
    ):
        ended = command(*arguments)
        assert ended.returncode == 13, ended.stderr
        assert "its checksum is another" in ended.stdout + ended.stderr
    before = stored.path.read_bytes()
    assert command("clean").returncode == 0
    assert (stored.path.read_bytes(), stored.package.exists()) == (before, True)


async def test_its_disks_are_restored_and_compared_when_that_is_asked_for(
    stored, command, tmp_path
):
    ended = command("restore", "main", "web", "out", "--trust-definition", "--json")
    assert ended.returncode == 0, ended.stderr
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    assert "its checksum is another" in events[1]["message"]
    assert [event["verified"] for event in events if event["event"] == "restore_done"] == [True]
    assert (tmp_path / "out" / "image").read_bytes() == (tmp_path / "image").read_bytes()
    ended = command("export", "main", "web", "vda", "out.raw", "--format", "raw", "--trust-def")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("way", [["--in-place"], ["out", "--define"], ["out", "--name", "x"]])
async def test_it_never_defines_a_domain_or_replaces_an_image(stored, command, way):
    ended = command("restore", "main", "web", *way, "--trust-definition")
    assert ended.returncode == 2
    assert "takes neither" in ended.stderr
