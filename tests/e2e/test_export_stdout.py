"""``export ... -``: the image goes through a real pipe, and the exit status says if it is whole."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from command import PROGRAM

from fakes.stored_backup import MIB, StoredBackup
from virtbackup_async.model.backup import Packager


class Exporting:
    """A backup of a raw disk of some MiB, and the command that exports it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.image = directory / "image"
        self.work = directory / "work"
        self.work.mkdir()
        self.config = directory / "config.yml"
        group = {"target": str(directory / "target"), "hosts": ["web"]}
        self.config.write_text(yaml.safe_dump({"groups": {"main": group}}))
        with self.image.open("wb") as file:
            file.write(os.urandom(3 * MIB))
            file.truncate(40 * MIB)

    async def back_up(self, packager: str) -> StoredBackup:
        return await StoredBackup(self.directory / "target", Packager(packager)).make(self.image)

    def start(self, *options: str, stdout: int) -> subprocess.Popen[bytes]:
        words = ["-c", self.config, "export", "main", "web", "vda", "-", *options]
        environment = {**os.environ, "TMPDIR": str(self.work)}
        return subprocess.Popen(
            [PROGRAM, *words], stdout=stdout, stderr=subprocess.PIPE, env=environment
        )

    def run(self, *options: str, stdout: int = subprocess.PIPE) -> tuple[int, bytes, str]:
        """The exit status, what came out, and what was said."""
        process = self.start(*options, stdout=stdout)
        out, err = process.communicate(timeout=60)
        assert b"Traceback" not in err
        assert list(self.work.iterdir()) == [], "a copy was left behind"
        return process.returncode, out, err.decode()


@pytest.fixture
def exporting(tmp_path):
    return Exporting(tmp_path)


@pytest.mark.parametrize("packager", ["directory", "repository"])
async def test_raw_goes_through_a_pipe(exporting, packager):
    await exporting.back_up(packager)
    status, out, err = exporting.run("--format", "raw")
    assert (status, out == exporting.image.read_bytes()) == (0, True), err


@pytest.mark.parametrize("packager", ["tar", "zstd", "repository"])
async def test_qcow2_goes_through_a_pipe(exporting, packager, tmp_path):
    await exporting.back_up(packager)
    status, out, err = exporting.run()
    assert status == 0, err
    (tmp_path / "out").write_bytes(out)
    assert len(out) < 4 * MIB, "holes are no data"
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", exporting.image, tmp_path / "out"]
    subprocess.run(compare, check=True, capture_output=True)


async def test_a_file_keeps_its_holes(exporting, tmp_path):
    await exporting.back_up("repository")
    with (tmp_path / "out").open("wb") as out:
        status, _, err = exporting.run("--format", "raw", stdout=out.fileno())
    assert status == 0, err
    assert (tmp_path / "out").read_bytes() == exporting.image.read_bytes()
    assert (tmp_path / "out").stat().st_blocks * 512 < 4 * MIB


async def test_qcow2_becomes_raw_by_a_copy_that_goes_again(exporting):
    whole = exporting.image.read_bytes()
    raw = exporting.image.rename(exporting.directory / "raw")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, exporting.image], check=True)
    backup = await exporting.back_up("zstd")
    text = backup.path.read_text().replace('"format": "raw"', '"format": "qcow2"')
    backup.rewrite(text)
    status, out, err = exporting.run("--format", "raw")
    assert (status, out == whole) == (0, True), err
    assert str(exporting.work) in err, "it says where the copy is"


async def test_a_reader_that_goes_away_is_an_error_in_one_line(exporting):
    await exporting.back_up("repository")
    process = exporting.start("--format", "raw", stdout=subprocess.PIPE)
    process.stdout.read(100_000)
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait(timeout=60) == 22
    process.stderr.close()
    assert "Traceback" not in err
    assert "what was written to standard output is not the whole disk" in err
    assert err.splitlines()[-1] == "virtbackup: nobody reads standard output any more."


async def test_damage_is_told_by_the_exit_status(exporting):
    await exporting.back_up("repository")
    (pack,) = (exporting.directory / "target/.virtbackup-repository/packs").rglob("*.pack")
    data = bytearray(pack.read_bytes())
    data[-1000] ^= 1
    pack.write_bytes(data)
    status, out, err = exporting.run("--format", "raw", "--quiet")
    assert status == 13
    assert len(out) < 40 * MIB
    assert "web: what was written to standard output is not the whole disk" in err


async def test_ctrl_c_does_not_wait_for_the_reader(exporting):
    await exporting.back_up("directory")
    process = exporting.start("--format", "raw", stdout=subprocess.PIPE)
    assert process.stdout.read(10) == exporting.image.read_bytes()[:10]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert b"not the whole disk" in process.stderr.read()
    process.stdout.close()
    process.stderr.close()


async def test_json_and_terminals_are_refused(exporting):
    await exporting.back_up("directory")
    status, _, err = exporting.run("--json")
    assert (status, "give OUTPUT a name" in err) == (2, True)
    terminal, of_program = os.openpty()
    status, _, err = exporting.run(stdout=of_program)
    assert (status, "does not belong on a terminal" in err) == (2, True)
    os.close(of_program)
    os.close(terminal)


async def test_a_directory_for_the_copy_that_is_not_there(exporting):
    backup = await exporting.back_up("directory")
    text = backup.path.read_text().replace('"format": "raw"', '"format": "qcow2"')
    backup.rewrite(text)
    exporting.work.rmdir()
    process = exporting.start("--format", "raw", stdout=subprocess.PIPE)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 22
    assert f"cannot use {exporting.work}" in err.decode()
