"""The wheel: it has all that an admin needs beside the program, and the program finds it there."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from virtbackup_async.errors import StorageError
from virtbackup_async.files.shipped import EXAMPLE_CONFIG, SYSTEMD_UNITS, shipped

ROOT = Path(__file__).parents[3]
SHARE = {
    "man/man1/virtbackup.1": "docs/man/virtbackup.1",
    "bash-completion/completions/virtbackup": "contrib/completion/virtbackup.bash",
    "zsh/site-functions/_virtbackup": "contrib/completion/virtbackup.zsh",
    "fish/vendor_completions.d/virtbackup.fish": "contrib/completion/virtbackup.fish",
    "virtbackup/prometheus/virtbackup.rules.yml": "contrib/prometheus/virtbackup.rules.yml",
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """What pip would put into site-packages."""
    place = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, timeout=50)
    (wheel,) = place.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(place)
    return place


def run(unpacked, *words):
    """Run the program of the wheel, which comes before the one that is installed."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "virtbackup_async", *words],
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        cwd=unpacked,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout


def test_what_other_programs_look_for_is_in_share(unpacked):
    (share,) = unpacked.glob("*.data/data/share")
    found = {
        str(path.relative_to(share)): path.read_bytes()
        for path in share.rglob("*")
        if path.is_file()
    }
    assert found == {name: (ROOT / source).read_bytes() for name, source in SHARE.items()}


def test_the_program_prints_the_example_that_came_with_it(unpacked):
    inside = unpacked / "virtbackup_async" / "shipped" / EXAMPLE_CONFIG
    inside.write_text("# of the wheel\n")
    assert run(unpacked, "config", "example") == "# of the wheel\n"


def test_each_unit_came_with_it(unpacked):
    units = unpacked / "virtbackup_async" / "shipped" / SYSTEMD_UNITS
    source = ROOT / SYSTEMD_UNITS
    assert {path.relative_to(units) for path in units.rglob("*")} == {
        path.relative_to(source) for path in source.rglob("*")
    }


def test_a_checkout_reads_its_own():
    assert shipped(EXAMPLE_CONFIG).read_bytes() == (ROOT / "config.yml").read_bytes()


def test_what_was_not_installed_is_told(unpacked):
    program = "from virtbackup_async.files.shipped import shipped; shipped('nothing')"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert f"{StorageError.__name__}: nothing was not installed with the program" in ended.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_is_what_the_command_prints(unpacked, shell):
    printed = run(unpacked, "completion", shell)
    assert printed == (ROOT / "contrib" / "completion" / f"virtbackup.{shell}").read_text()
