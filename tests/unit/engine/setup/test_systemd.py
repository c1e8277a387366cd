"""Units are installed once however often it is asked for, and never over a file of the admin's."""

import stat

import pytest

from virtbackup_async.engine.setup.systemd import (
    SystemdRequest,
    install_units,
    uninstall_units,
    unit_directory,
)
from virtbackup_async.engine.setup.units import MARK, units_for
from virtbackup_async.errors import StorageError
from virtbackup_async.events import Level

UNITS = units_for(("/bin/true",), user=False)


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """Stands in for systemctl; returns a function that tells what it was told."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    told = tmp_path / "told"
    told.touch()
    program = bin_ / "systemctl"
    program.write_text(f'#!/bin/sh\necho "$*" >> {told}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_))  # alone: the host's own must never be asked
    return lambda: told.read_text().splitlines()


@pytest.fixture
def site(tmp_path):
    """Installs into a directory; `said` has what was said, by the level."""

    class Installed:
        def __init__(self):
            self.directory = tmp_path / "units"
            self.said = []

        def emit(self, finding):
            self.said.append((finding.level, finding.subject, finding.message))

        async def install(self, units=UNITS, **more):
            self.said = []
            await install_units(units, SystemdRequest(self.directory, **more), self.emit)
            return [message for _, _, message in self.said]

        async def uninstall(self, **more):
            self.said = []
            await uninstall_units(UNITS, SystemdRequest(self.directory, **more), self.emit)
            return [message for _, _, message in self.said]

        def files(self):
            found = (path for path in self.directory.rglob("*") if path.is_file())
            return sorted(str(path.relative_to(self.directory)) for path in found)

    return Installed()


async def test_the_units_are_written_and_enabled(site, systemctl):
    await site.install(runs_here=True)
    assert site.files() == sorted(unit.name for unit in UNITS)
    for unit in UNITS:
        path = site.directory / unit.name
        assert path.read_text() == unit.text
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert systemctl() == [
        "daemon-reload",
        "enable --now virtbackup-backup.timer virtbackup-verify.timer",
        "enable virtbackup-clean.service",
    ]
    assert {level for level, _, _ in site.said} == {Level.OK}


async def test_twice_is_once(site):
    await site.install()
    before = {name: (site.directory / name).stat().st_ino for name in site.files()}
    messages = await site.install()
    assert "written" not in messages
    assert {name: (site.directory / name).stat().st_ino for name in site.files()} == before


async def test_another_program_takes_its_place(site):
    await site.install()
    other = units_for(("/bin/false",), user=False)
    messages = await site.install(other)
    assert messages.count("written") == sum("/bin/false" in unit.text for unit in other)
    assert "/bin/true" not in (site.directory / "virtbackup-backup.service").read_text()


async def test_a_file_of_the_admins_is_refused_before_anything_is_written(site):
    path = site.directory / "virtbackup-verify.timer"
    path.parent.mkdir()
    path.write_text("[Timer]\n")
    with pytest.raises(StorageError, match="was not written by this command"):
        await site.install()
    assert site.files() == ["virtbackup-verify.timer"]
    await site.install(force=True)
    assert path.read_text().startswith(MARK)


async def test_where_systemd_does_not_run_it_is_said_what_to_run(site, systemctl):
    await site.install(runs_here=False)
    assert systemctl() == []
    told = [subject for level, subject, _ in site.said if level is Level.INFO]
    assert told[0] == "systemctl daemon-reload"


async def test_a_user_has_units_of_his_own(site, systemctl):
    await site.install(user=True, runs_here=True)
    assert all(words.startswith("--user ") for words in systemctl())
    assert unit_directory(user=True).parts[-2:] == ("systemd", "user")


async def test_a_systemctl_that_fails_is_a_problem(site, systemctl, tmp_path):
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\necho no bus >&2\nexit 1\n")
    await site.install(runs_here=True)
    assert (Level.PROBLEM, "systemctl daemon-reload", "no bus") in site.said
    (tmp_path / "bin" / "systemctl").write_text("#!/no/such/shell\n")
    await site.install(runs_here=True)
    assert any("cannot be started" in message for _, _, message in site.said)


async def test_what_systemd_says_of_a_unit_is_a_warning(site):
    await site.install(units_for(("/no/such/program",), user=False))
    warnings = [said for level, _, said in site.said if level is Level.WARNING]
    assert any("/no/such/program" in said for said in warnings)


async def test_uninstalled_is_all_but_what_the_admin_wrote(site, systemctl):
    await site.install(runs_here=True)
    mine = site.directory / "virtbackup-.service.d" / "mine.conf"
    mine.write_text("[Service]\n")
    (site.directory / "virtbackup-verify.timer").write_text("[Timer]\n")
    await site.uninstall(runs_here=True)
    assert site.files() == ["virtbackup-.service.d/mine.conf", "virtbackup-verify.timer"]
    assert systemctl()[-2:] == [
        "disable --now virtbackup-backup.timer virtbackup-clean.service",
        "daemon-reload",
    ]
    (message,) = await site.uninstall(runs_here=True)
    assert message.startswith("has no unit")


async def test_a_directory_that_cannot_be_written_to(site):
    site.directory.touch()
    with pytest.raises(StorageError):
        await site.install()
