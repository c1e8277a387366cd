"""files/directories.py: what is in such a directory, nobody else can have put there."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from virtbackup_async.errors import StorageError
from virtbackup_async.files.directories import (
    check_private,
    make_directories,
    make_private,
    remove_empty,
)
from virtbackup_async.files.target_path import TargetPath


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


def test_what_was_made_is_returned_and_only_that(tmp_path):
    (tmp_path / "a").mkdir()
    new = [tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert make_directories(new[-1], 0o700) == new
    assert make_directories(new[-1], 0o700) == []


def test_of_many_at_once_each_directory_is_made_by_one(tmp_path):
    deep = tmp_path.joinpath(*"abcdefgh")
    with ThreadPoolExecutor(8) as threads:
        made = [
            at
            for call in threads.map(lambda _: make_directories(deep, 0o700), range(8))
            for at in call
        ]
    assert sorted(made) == sorted([deep, *list(deep.parents)[:7]])


def test_nothing_is_left_if_the_last_cannot_be_made(tmp_path):
    with pytest.raises(OSError, match="too long"):
        make_directories(tmp_path / "a" / "b" / ("x" * 300), 0o700)
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_use_by_now_is_not_removed(tmp_path):
    made = make_directories(tmp_path / "a" / "b" / "c", 0o700)
    (tmp_path / "a" / "mine").touch()
    remove_empty(made)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "mine"]


def test_a_private_directory_that_cannot_be_synced_is_not_left(tmp_path, monkeypatch):
    def fails(self):
        raise StorageError("the storage failed")

    monkeypatch.setattr(TargetPath, "sync_names", fails)
    with pytest.raises(StorageError, match="storage failed"):
        make_private(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
