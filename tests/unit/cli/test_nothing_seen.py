"""How each command ends when it finds nothing: the table of docs/reference/exit-codes.md."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TEXT = (Path(__file__).parents[3] / "docs/reference/exit-codes.md").read_text()
TABLE = re.search(r"<!-- tried by \S+ -->\n(.*?)<!-- end -->", TEXT, re.DOTALL)[1]
HEADS, _, *ROWS = ([cell.strip() for cell in row.split("|")[1:-1]] for row in TABLE.splitlines())
NAME = "20260701-030000_1_test"
# libvirt's own driver for tests has one domain, `test`, and no disk of it can be backed up.
ARGUMENTS = {
    "restore": ["main", "test", "restored"],
    "export": ["main", "test", "vda", "exported"],
    "serve": ["main", "test"],
    "forget": ["test@2026-07-01"],
    "show": ["test"],
    "diff": ["test@2026-07-01", "test"],
    "pin": ["main", "test"],
    "unpin": ["main", "test"],
}
CASES = [
    (row[0].strip("`"), situation, *cell.partition(" ")[::2])
    for row in ROWS
    for situation, cell in zip(HEADS[1:], row[1:], strict=True)
]


def prepare(place, situation):
    """Make the configuration and the target of a situation."""
    target = place / "target"
    group = {"target": str(target), "autostart": True, "hosts": ["test"], "packager": "directory"}
    groups = {} if situation.startswith("no group") else {"main": group}
    config = yaml.safe_dump({"uri": "test:///default", "groups": groups})
    (place / "config.yml").write_text(config)
    if situation != "target not readable":
        target.mkdir(mode=0o700)
    if situation.startswith("all backups"):
        (target / "test").mkdir()
        (target / "test" / f"{NAME}.json").write_text("{")


def run(place, *arguments):
    argv = [sys.executable, "-m", "virtbackup_async", "-c", "config.yml", *arguments]
    return subprocess.run(argv, cwd=place, capture_output=True, text=True, timeout=60, check=False)


def test_the_table_has_all_commands_and_situations():
    assert len(CASES) == 19 * 4


@pytest.mark.parametrize(("command", "situation", "code", "says"), CASES)
def test_nothing_seen_is_said(tmp_path, command, situation, code, says):
    prepare(tmp_path, situation)
    ended = run(tmp_path, *command.split(), *ARGUMENTS.get(command, []))
    said = " ".join((ended.stdout + ended.stderr).split())
    assert says in said
    assert code == "—" or ended.returncode == int(code), said
    assert "Traceback" not in said
