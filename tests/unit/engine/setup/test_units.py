"""The units for this installation: they start this program, and systemd has nothing to say."""

import re
import shlex
import shutil
import subprocess

import pytest

from virtbackup_async.engine.setup.units import AT_BOOT, MARK, TIMERS, quoted, units_for

EXEC = re.compile(r"^Exec\w+=(.*)$", re.MULTILINE)
PROGRAM = ("/opt/virtbackup/bin/virtbackup",)
NEEDS_SYSTEMD = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd is not installed"
)


def commands(units):
    return [shlex.split(line) for unit in units for line in EXEC.findall(unit.text)]


@pytest.mark.parametrize("user", [False, True])
def test_each_unit_starts_this_program(user):
    units = units_for((*PROGRAM, "-c", "/srv/config.yml"), user=user)
    started = commands(units)
    assert {words[0] for words in started} == {*PROGRAM}
    assert {tuple(words[1:3]) for words in started} == {("-c", "/srv/config.yml")}
    assert {words[3] for words in started} == {"backup", "clean", "verify"}
    assert all(unit.text.startswith(MARK) for unit in units)
    assert {*TIMERS, AT_BOOT} <= {unit.name for unit in units}


def test_a_users_units_take_no_rights_away_that_only_root_can():
    units = units_for(PROGRAM, user=True)
    everything = "".join(unit.text for unit in units)
    assert "CapabilityBoundingSet" not in everything
    assert "KillMode=mixed" in everything
    assert "multi-user.target" not in everything
    assert "WantedBy=default.target" in everything
    root = "".join(unit.text for unit in units_for(PROGRAM, user=False))
    assert "CapabilityBoundingSet" in root
    assert "WantedBy=multi-user.target" in root


@NEEDS_SYSTEMD
@pytest.mark.parametrize("name", ["plain", "a b", "100%", "$HOME", "é;#"])
@pytest.mark.parametrize("user", [False, True])
def test_systemd_finds_the_program_wherever_it_is(tmp_path, name, user):
    program = tmp_path / name / "virtbackup"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    place = tmp_path / "units"
    for unit in units_for((str(program), "-c", '/a $b%c "d" \\e.yml'), user=user):
        path = place / unit.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(unit.text)
    files = [str(path) for path in place.iterdir() if path.is_file()]
    argv = ["systemd-analyze", *(["--user"] if user else []), "verify", "--man=no", *files]
    environment = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    said = subprocess.run(
        argv, capture_output=True, text=True, timeout=50, check=False, env=environment
    )
    about_us = [line for line in said.stderr.splitlines() if "virtbackup" in line]
    assert (said.returncode, about_us) == (0, [])


@pytest.mark.parametrize("name", ['say "hi"', "it's", "back\\slash", "a\nb"])
def test_a_program_that_systemd_would_not_start_is_refused(name):
    with pytest.raises(ValueError, match=r"systemd starts no program|cannot be written"):
        units_for((f"/opt/{name}/virtbackup",), user=False)


@pytest.mark.parametrize("name", ["a\nb", "\x1b", "\0"])
def test_what_no_unit_can_say_is_refused(name):
    with pytest.raises(ValueError, match="cannot be written into a unit"):
        quoted(name)
