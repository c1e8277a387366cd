"""Each kind of file in an encrypted target exchanged, brought back and removed: who notices.

The table in docs/reference/repository-format.md is what is expected.
"""

import re
from pathlib import Path

import anyio
import pytest

from fakes.exchanged_scene import ExchangedScene

DOC = Path(__file__).parents[4] / "docs/reference/repository-format.md"
DEEDS = ("exchanged", "older", "removed")
COMMANDS = {"doctor", "list", "status", "restore", "verify", "clean", "backup"}


def table():
    """Yield kind, deed and cell of the table in the document."""
    text = DOC.read_text().partition("### Who notices")[2].partition("\n#")[0]
    for line in re.findall(r"^\| (?!File |---)(.*) \|$", text, re.MULTILINE):
        kind, *cells = line.split(" | ")
        for deed, cell in zip(DEEDS, cells, strict=True):
            if cell != "-":
                yield kind.strip("`"), deed, cell


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("scene")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(root / "state"))
        patch.setattr("virtbackup_async.host.domain_locks.SYSTEM_DIRECTORY", root / "locks")
        (root / "signs").mkdir()
        patch.setattr("virtbackup_async.host.signs._DIRECTORY", root / "signs")
        scene = ExchangedScene(root)
        anyio.run(scene.build)
        scene.set_up()
        return scene, anyio.run(scene.who_notices)


@pytest.fixture
def scene(built, monkeypatch):
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(built[0].root / "state"))
    built[0].set_up()
    return built[0]


def test_nothing_is_noticed_where_nothing_happened(built):
    scene, usual = built
    assert usual["restore"].keys() <= {"warning"}
    assert usual["list"] == usual["verify"] == {}
    assert {kind for kind, _, _ in table()} == {*scene.files, "whole target"}


@pytest.mark.parametrize(("kind", "deed", "cell"), [*table()])
async def test_who_notices(scene, built, kind, deed, cell):
    if cell.startswith("never"):
        with pytest.raises((LookupError, StopIteration)):
            scene.tamper(kind, deed)
        return
    scene.tamper(kind, deed)
    found = await scene.who_notices()
    noticed = {command for command, said in found.items() if said - built[1][command]}
    named = {word for word in re.findall(r"`(\w+)`", cell.partition(";")[0]) if word in COMMANDS}
    named = COMMANDS if cell.startswith("all") else named
    assert noticed == named, found
