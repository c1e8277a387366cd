"""What file systems lack is worked round by every command with every packager, and told once."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fakes.full_site import PACKAGERS, FullSite
from fakes.lacking_run import build_shim, lacking_environment, run_lacking
from virtbackup_async.files.lacks import Lack

LACKS = {"sync": Lack.SYNC, "links": Lack.LINKS, "modes": Lack.MODES, "locks": Lack.LOCKS}
PROGRAM = Path(sys.executable).with_name("virtbackup")
BACKUPS = [f"backup {packager}" for packager in PACKAGERS]


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
async def filled():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        site = FullSite(Path(directory) / "site")
        await site.fill()
        yield site


@pytest.mark.parametrize("lack", ["nothing", *LACKS])
async def test_every_command_works_where_something_lacks(filled, memory, shim, lack):
    site = filled.copy_to(memory / "site")
    commands = ["list", "verify", "verify --quick", "pin", "restore", "export", "repair"]
    said = run_lacking(shim, lack, site, [*commands, *BACKUPS, "clean"])
    assert [failure for failure in said["failures"] if "is empty" not in failure] == []
    assert said["done"]["verify"] == 8
    assert all(said["done"][command] == 1 for command in BACKUPS)
    assert said["done"]["clean"] > 0
    wanted = [f"the file system of {site.target} {LACKS[lack]}"] if lack in LACKS else []
    assert [told for told in said["lacks"] if f" {site.target} " in told] == wanted
    pinned = [json.loads(path.read_text()).get("pinned") for path in site.target.glob("*/*.json")]
    assert pinned.count(True) == 4, "each is kept"


@pytest.mark.parametrize("packager", PACKAGERS)
@pytest.mark.parametrize("lack", LACKS)
async def test_a_first_backup_is_made(filled, memory, shim, lack, packager):
    site = FullSite(memory / "site")
    site.target.mkdir(parents=True)
    site.locks.mkdir()
    site.image.write_bytes(filled.image.read_bytes())
    commands = [f"backup {packager}", "list", "verify", "restore", "clean"]
    said = run_lacking(shim, lack, site, commands)
    assert said["failures"] == []
    assert (said["done"][commands[0]], said["done"]["verify"]) == (1, 1)
    assert [path.name for path in site.target.rglob(".*.tmp")] == []
    restored = memory / "site" / "restored" / "0" / site.image.name
    assert restored.read_bytes() == site.image.read_bytes()


@pytest.mark.parametrize("lack", ["sync", "locks"])
async def test_a_lack_is_told_once_by_the_command(filled, memory, shim, lack):
    site = filled.copy_to(memory / "site")
    site.config()
    environment = lacking_environment(shim, lack, site.root)

    def run(*words):
        command = [PROGRAM, "-c", site.root / "config.yml", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    told = f"the file system of {site.target} {LACKS[lack]}"
    verified = run("verify")
    assert verified.returncode == 0, verified.stderr
    assert " ".join(verified.stderr.split()).count(told) == 1
    said = [json.loads(line) for line in run("verify", "--json").stdout.splitlines()]
    assert [event["message"] for event in said if event["event"] == "warning"].count(told) == 1
    looked = [json.loads(line) for line in run("doctor", "--json").stdout.splitlines()]
    found = [
        event for event in looked if event["event"] == "finding" and event["level"] == "warning"
    ]
    assert f"its file system {LACKS[lack]}" in {event["message"] for event in found}
