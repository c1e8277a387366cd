"""A file whose hooks are run as us must be one that nobody else can write."""

import os
import tempfile
from pathlib import Path

import pytest

from virtbackup_async.config.loading import load_config
from virtbackup_async.config.trust import distrust

WITH_HOOKS = "groups: {g: {target: /t, hooks: {before: 'true'}}}"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def place():
    """A directory in a sticky one that all can write to, as ``/tmp`` is."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


@pytest.fixture
def file(place):
    file = place / "config.yml"
    file.write_text(WITH_HOOKS)
    file.chmod(0o644)
    return file


def look(path):
    with path.open("rb") as opened:
        found = distrust(path, os.fstat(opened.fileno()))
    return found and (found.message, found.hint)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o400])
def test_ones_own_file_is_trusted(file, mode):
    file.chmod(mode)
    assert look(file) is None
    assert load_config(file).distrust is None


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646, 0o620])
def test_a_file_that_others_can_write_is_not(file, mode):
    file.chmod(mode)
    message = f"others can write to {file} (mode {mode:04o})"
    assert look(file) == (message, f"Run chmod go-w {file}.")


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_nor_is_one_in_a_directory_that_others_can_write(place, file, mode):
    below = place / "below"
    below.mkdir()
    file = file.rename(below / "config.yml")
    for directory in (below, place):
        directory.chmod(mode)
        message = f"others can write to {directory} (mode {mode:04o})"
        assert look(file) == (message, f"Run chmod go-w {directory}.")
        directory.chmod(0o755)


def test_a_sticky_directory_lets_others_move_only_what_is_theirs(place, file):
    place.chmod(0o1777)
    assert look(file) is None


@needs_root
@pytest.mark.parametrize("which", ["file", "directory"])
def test_what_belongs_to_another_user_is_not_trusted(place, file, which):
    theirs = file if which == "file" else place
    os.chown(theirs, 65534, -1)
    assert look(file) == (f"{theirs} belongs to nobody", f"Run chown root {theirs}.")


def test_links_on_the_way_are_looked_at_and_followed(place, file):
    open_place = place / "open"
    open_place.mkdir()
    (open_place / "link.yml").symlink_to("../real/config.yml")
    real = place / "real"
    real.mkdir()
    file.rename(real / "config.yml")
    link = place / "link.yml"
    link.symlink_to(open_place / "link.yml")
    assert look(link) is None
    for directory in (open_place, real):
        directory.chmod(0o777)
        assert look(link)[0] == f"others can write to {directory} (mode 0777)"
        directory.chmod(0o755)


@needs_root
def test_a_link_of_another_user_in_a_sticky_directory_is_not_trusted(place, file):
    place.chmod(0o1777)
    link = place / "link.yml"
    link.symlink_to(file)
    os.chown(link, 65534, -1, follow_symlinks=False)
    assert look(link)[0] == f"{link} belongs to nobody"


def test_a_relative_path_is_looked_at_from_the_root_on(place, file, monkeypatch):
    (place / "below").mkdir()
    monkeypatch.chdir(place / "below")
    assert look(Path("../config.yml")) is None
    place.chmod(0o777)
    assert look(Path("../config.yml"))[0] == f"others can write to {place} (mode 0777)"


def test_a_pipe_is_ours_alone():
    """``virtbackup -c <(gpg -d config.yml.gpg) backup``."""
    read, write = os.pipe()
    os.write(write, WITH_HOOKS.encode())
    os.close(write)
    assert load_config(Path(f"/dev/fd/{read}")).distrust is None
    os.close(read)


def test_a_file_without_a_name_is_ours_alone():
    """``virtbackup -c /dev/stdin backup <<EOF``: the shell has removed its file already."""
    with tempfile.TemporaryFile() as file:
        file.write(WITH_HOOKS.encode())
        file.seek(0)
        assert load_config(Path(f"/dev/fd/{file.fileno()}")).distrust is None


@pytest.mark.parametrize(
    ("text", "is_told"),
    [
        (WITH_HOOKS, True),
        ("default: {hooks: {after: 'true'}}\ngroups: {g: {target: /t}}", True),
        ("hooks: {on_failure: 'true'}\ngroups: {g: {target: /t}}", True),
        ("groups: {g: {target: /t, hooks: {timeout_s: 3}}}", False),
        ("groups: {g: {target: /t}}", False),
    ],
)
def test_it_is_told_where_there_are_hooks(file, text, is_told):
    file.write_text(text)
    file.chmod(0o666)
    said = (
        f"{file}:1: hooks are refused, and the backups behind them: others can write to {file}"
        f" (mode 0666). Run chmod go-w {file}."
    )
    config = load_config(file)
    assert config.warnings == ((said,) if is_told else ())
    assert (config.distrust is not None) == is_told
