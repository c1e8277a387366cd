"""`virtbackup systemd` as typed: units that start this very program, with this configuration."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("virtbackup")
CONFIG = "groups: {a: {target: /x, autostart: true}}\n"


@pytest.fixture
def systemd(tmp_path):
    """Returns a function that runs the command as a user whose home is the test's."""
    (tmp_path / "home").mkdir()
    config = tmp_path / "home" / "virt-backup" / "config.yml"
    config.parent.mkdir()
    config.write_text(CONFIG)

    def run(*words, program=PROGRAM, before=()):
        environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "home")}
        return subprocess.run(
            [program, *map(str, before), "systemd", *words],
            env={**environment, "XDG_RUNTIME_DIR": str(tmp_path / "nowhere")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    run.units = tmp_path / "home" / "systemd" / "user"
    run.config = config
    return run


def test_a_users_own_configuration_need_not_be_named(systemd):
    ended = systemd("install", "--user")
    assert ended.returncode == 0, ended.stderr
    service = (systemd.units / "virtbackup-backup.service").read_text()
    assert f"ExecStart={PROGRAM} backup --no-progress\n" in service
    assert f"ExecStopPost={PROGRAM} clean\n" in service
    assert str(systemd.units / "virtbackup-backup.timer") in ended.stdout
    assert "loginctl enable-linger" in ended.stdout


def test_another_configuration_is_named(systemd, tmp_path):
    other = tmp_path / "my config.yml"
    other.write_text(CONFIG)
    systemd("install", "--user", before=("-c", other))
    service = (systemd.units / "virtbackup-backup.service").read_text()
    assert f'ExecStart={PROGRAM} -c "{other}" backup' in service


def test_a_dry_run_prints_the_units_of_the_system_and_writes_nothing(systemd, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    ended = systemd("install", "--dry-run")
    assert ended.returncode == 0, ended.stderr
    # Root would not find the configuration of this user by itself.
    assert f"ExecStart={PROGRAM} -c {systemd.config} backup" in ended.stdout
    assert "# /etc/systemd/system/virtbackup-backup.timer" in ended.stdout
    assert "CapabilityBoundingSet=" in ended.stdout
    assert "is in a temporary directory, and units have one of their own" in ended.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_program_in_a_temporary_place_is_refused_or_forced(systemd, tmp_path):
    program = tmp_path / "virtbackup"
    program.write_text(PROGRAM.read_text())
    program.chmod(0o755)
    ended = systemd("install", "--user", program=program)
    assert ended.returncode == 2
    assert f"{program} is in a temporary directory" in ended.stderr
    assert not systemd.units.exists()
    assert systemd("install", "--user", "--force", program=program).returncode == 0
    assert str(program) in (systemd.units / "virtbackup-verify.service").read_text()


def test_root_runs_no_program_of_others(systemd, tmp_path):
    program = tmp_path / "virtbackup"
    program.write_text(PROGRAM.read_text())
    program.chmod(0o777)
    ended = systemd("install", "--dry-run", "--force", program=program)
    assert ended.returncode == 2
    assert "others can write to" in ended.stderr


def test_without_a_configuration_both_ways_to_one_are_named(systemd):
    systemd.config.unlink()
    ended = systemd("install", "--user", before=("-c", systemd.config))
    assert ended.returncode == 2
    assert "virtbackup init" in ended.stderr
    assert "virtbackup config example" in ended.stderr


def test_what_was_installed_is_taken_away(systemd):
    systemd("install", "--user")
    ended = systemd("uninstall", "--user")
    assert ended.returncode == 0
    assert [path for path in systemd.units.rglob("*") if path.is_file()] == []


def test_a_dry_run_is_no_json(systemd):
    assert systemd("install", "--dry-run", "--json").returncode == 2
