"""The commands of docs/how-to/restore.md that need no virtbackup, run on real backups."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fakes.stored_backup import StoredBackup
from virtbackup_async.model.backup import Packager

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


def test_every_link_inside_the_page_leads_somewhere():
    text = DOC.read_text()
    heads = {
        re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= heads
