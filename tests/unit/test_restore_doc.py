"""The commands of docs/how-to/restore.md for a host that has no more than a target, run on it."""

import os
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from fakes.stored_backup import StoredBackup
from virtbackup_async.catalog.config_copy import save_config_copy
from virtbackup_async.config.loading import load_config
from virtbackup_async.config.saved_copy import dumps
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.storage_location import StorageLocation

DOC = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "restore.md"
BLOCK = re.compile(r"<!-- run by \S+: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)
COMMANDS = dict(BLOCK.findall(DOC.read_text()))
PACKAGERS = [
    Packager("directory"),
    *(Packager("tar", {"compression": name}) for name in (None, "gz", "bz2", "xz")),
    pytest.param(
        Packager("zstd"),
        marks=pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd on this machine"),
    ),
]


def run(command, backup, target):
    target.mkdir(exist_ok=True)
    environment = {
        "BACKUP": str(backup.directory / backup.name),
        "TARGET": str(target),
        "PATH": "/usr/bin:/bin",
    }
    subprocess.run(["sh", "-eu", "-c", command], check=True, env=environment)


@pytest.mark.parametrize("packager", PACKAGERS, ids=str)
async def test_images_are_restored_by_ordinary_tools(tmp_path, packager):
    backup = await StoredBackup(tmp_path / "t", packager).make(tmp_path / "image.raw")
    run(COMMANDS[packager.type], backup, tmp_path / "restored")
    (restored,) = (tmp_path / "restored").iterdir()
    assert restored.name == backup.file
    assert restored.read_bytes() == (tmp_path / "image.raw").read_bytes()


async def test_the_domains_xml_comes_out_of_the_definition(tmp_path):
    backup = await StoredBackup(tmp_path / "t", PACKAGERS[0]).make(tmp_path / "image.raw")
    run(COMMANDS["xml"], backup, tmp_path / "restored")
    assert (tmp_path / "restored" / "domain.xml").read_text() == "<domain/>\n"


# What the section restores: each in a directory of its own, from a packager of its own.
NIGHTS = {
    "june": ("2026-06-30", Packager("directory")),
    "july": ("2026-07-01", Packager("zstd")),
    "newest": ("2026-07-02", Packager("repository")),
}


class BareHost:
    """A new host with the target of the old one: it has no configuration, and no libvirt."""

    def __init__(self, root):
        self.root = root
        self.target = root / "mnt" / "backups"

    async def store(self):
        """Put the backups of all nights into the target, each of other data."""
        for night, (day, packager) in NIGHTS.items():
            date = int(datetime.fromisoformat(f"{day}T03:00").timestamp())
            backup = StoredBackup(self.target, packager, date=date)
            await backup.make(self.root / f"{night}.raw")

    def run(self, block):
        """Run a block of the page, with the host's directories below ``root``."""
        command = re.sub(r"(?<= )/(?=(mnt|srv|etc)/)", f"{self.root}/", COMMANDS[block])
        assert command != COMMANDS[block]
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.root / "home"),
            "XDG_CONFIG_HOME": str(self.root / "home"),
            "XDG_STATE_HOME": str(self.root / "home"),
            "LIBVIRT_DEFAULT_URI": "qemu+unix:///system?socket=/nonexistent",
            "COLUMNS": "200",
        }
        argv = ["bash", "-eu", "-c", command]
        ended = subprocess.run(
            argv, capture_output=True, text=True, cwd=self.root, env=environment, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@pytest.fixture
def bare_host(tmp_path):
    for directory in ("mnt/backups", "srv", "etc/virt-backup"):
        (tmp_path / directory).mkdir(parents=True)
    return BareHost(tmp_path)


async def test_a_target_alone_brings_each_backup_back(bare_host):
    await bare_host.store()
    listed = bare_host.run("list_gone")
    assert all(day in listed for day, _ in NIGHTS.values())
    assert "virtbackup restore --target" in listed
    bare_host.run("restore_gone")
    for night in NIGHTS:
        (restored,) = (bare_host.root / "srv" / night).glob("*.raw")
        assert restored.read_bytes() == (bare_host.root / f"{night}.raw").read_bytes()


async def test_the_configuration_comes_back_from_the_target(bare_host):
    path = bare_host.root / "old.yml"
    path.write_text(f"groups: {{main: {{hosts: [web], target: {bare_host.target}}}}}")
    data = dumps(load_config(path), "old-host")
    await save_config_copy(StorageLocation.of(bare_host.target), "old-host", data, create=True)
    bare_host.run("config_gone")
    copied = load_config(bare_host.root / "etc/virt-backup/config.yml")
    assert copied.groups["main"].target.directory == bare_host.target


def test_every_link_inside_the_page_leads_somewhere():
    text = DOC.read_text()
    heads = {
        re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= heads
