"""files/directories.py: what is in such a directory, nobody else can have put there."""

import os
import stat

import pytest

from virtbackup_async.errors import StorageError
from virtbackup_async.files.directories import check_private, make_private


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_with_all_above_it_for_its_owner_alone(tmp_path):
    directory = tmp_path / "a" / "b"
    assert not check_private(directory)
    make_private(directory)
    make_private(directory)
    assert mode(directory) == mode(directory.parent) == 0o700
    assert check_private(directory)


def test_a_mode_that_lets_others_read_is_taken_back(tmp_path):
    directory = tmp_path / "d"
    directory.mkdir()
    directory.chmod(0o755)
    assert check_private(directory)
    assert mode(directory) == 0o700


def writable(path):
    path.mkdir()
    path.chmod(0o770)


def link(path):
    path.with_name("elsewhere").mkdir()
    path.symlink_to(path.with_name("elsewhere"))


def file(path):
    path.touch()


@pytest.mark.parametrize("spoil", [writable, link, file])
@pytest.mark.parametrize("use", [make_private, check_private])
def test_what_others_may_have_filled_is_refused(tmp_path, spoil, use):
    path = tmp_path / "d"
    spoil(path)
    with pytest.raises(StorageError):
        use(path)


@pytest.mark.parametrize("use", [make_private, check_private])
def test_so_is_another_users(tmp_path, monkeypatch, use):
    path = tmp_path / "d"
    path.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(StorageError, match=f"belongs to user {path.stat().st_uid}"):
        use(path)
