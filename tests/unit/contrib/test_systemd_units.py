"""The example units: what systemd says of them, and that they run commands that there are."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from virtbackup_async.cli.main import virtbackup

UNITS = Path(__file__).parents[3] / "contrib" / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
COMMAND = re.compile(r"^Exec\w+=virtbackup (\w+)(.*)$", re.MULTILINE)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_has_nothing_to_say_about_the_units(tmp_path):
    installed = tmp_path / "units"
    shutil.copytree(UNITS, installed)
    program = str(Path(sys.executable).with_name("virtbackup"))
    for service in installed.glob("*.service"):
        service.write_text(service.read_text().replace("=virtbackup ", f"={program} "))
    units = sorted(path for path in installed.iterdir() if path.is_file())
    argv = ["systemd-analyze", "verify", "--man=no", *map(str, units)]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=50, check=False)
    about_us = [line for line in said.stderr.splitlines() if "virtbackup" in line]
    assert (said.returncode, about_us) == (0, [])


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.stem)
def test_the_units_run_commands_that_there_are(service):
    commands = COMMAND.findall(service.read_text())
    assert commands
    known = virtbackup.list_commands(None)
    assert [name for name, _ in commands if name not in known] == []


def test_each_timer_has_its_service():
    timers = {path.stem for path in UNITS.glob("*.timer")}
    assert timers == {"virtbackup-backup", "virtbackup-verify"}
    assert timers <= {path.stem for path in SERVICES}


@pytest.mark.parametrize("name", ["hardening.conf", "running.conf"])
def test_each_setting_says_why(name):
    lines = (UNITS / "virtbackup-.service.d" / name).read_text().splitlines()
    unexplained = [
        lines[number]
        for number in range(1, len(lines))
        if "=" in lines[number]
        and not lines[number].startswith("#")
        and not lines[number - 1].startswith("#")
        and "=" not in lines[number - 1]
    ]
    assert unexplained == []
