"""files/durable.py: whole files or none, private, and nothing else left in the directory."""

import errno
import os
import stat

import pytest

from virtbackup_async.errors import StorageError
from virtbackup_async.files.durable import (
    remove_durably,
    rename_exclusively,
    sync_directory,
    write_atomically,
    write_exclusively,
)
from virtbackup_async.files.refusals import storage_error


async def test_write_creates_a_private_file(tmp_path):
    path = tmp_path / "a.json"
    await write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


async def test_write_replaces_the_old_content_by_another_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"old and longer")
    with path.open("rb") as reader:
        await write_atomically(path, b"new")
        assert reader.read() == b"old and longer"
    assert path.read_bytes() == b"new"


async def test_write_takes_the_longest_name_there_is(tmp_path):
    path = tmp_path / ("n" * 255)
    await write_atomically(path, b"x")
    assert path.read_bytes() == b"x"


async def test_failed_write_leaves_nothing_behind(tmp_path):
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        await write_atomically(path, b"x")
    assert list(tmp_path.iterdir()) == [path]


async def test_write_into_a_missing_directory_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="No such file"):
        await write_atomically(tmp_path / "none" / "a.json", b"x")


async def test_sync_of_a_missing_directory_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot sync"):
        await sync_directory(tmp_path / "none")


async def test_remove_takes_the_file_and_forgives_a_missing_one(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x")
    await remove_durably(path)
    await remove_durably(path)
    await remove_durably(tmp_path / "none" / "a")
    assert not path.exists()


async def test_remove_of_a_directory_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot remove"):
        await remove_durably(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_target_is_said_as_such(tmp_path, number):
    error = storage_error("write", tmp_path, OSError(number, "no"))
    assert error.message.startswith("no space left")
    assert error.hint


async def test_exclusive_write_is_private_and_never_replaces(tmp_path):
    path = tmp_path / "a"
    await write_exclusively(path, b"first")
    with pytest.raises(StorageError, match="File exists"):
        await write_exclusively(path, b"second")
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_exclusive_rename_moves_to_a_free_name(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    await rename_exclusively(tmp_path / "a", tmp_path / "b")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("b", b"x")]


async def test_exclusive_rename_never_replaces(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(StorageError, match="File exists"):
        await rename_exclusively(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes() == b"ab"


async def test_exclusive_rename_does_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_paths, **_options):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"a")
    await rename_exclusively(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"a"
    (tmp_path / "a").write_bytes(b"new")
    with pytest.raises(StorageError, match="File exists"):
        await rename_exclusively(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes() == b"newa"


async def test_failed_exclusive_rename_leaves_the_name_free(tmp_path):
    with pytest.raises(StorageError, match="cannot rename"):
        await rename_exclusively(tmp_path / "none", tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


async def test_a_rename_stays_in_the_directory(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(ValueError, match="not in the same directory"):
        await rename_exclusively(tmp_path / "a", tmp_path / "b" / "a")
    assert (tmp_path / "a").read_bytes() == b"a"


async def test_the_new_file_has_the_mode_of_what_the_link_led_to(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"old")
    file.chmod(0o640)
    link.symlink_to(file)
    await write_atomically(link, b"new", keep_owner=True)
    assert not link.is_symlink()
    assert (link.read_bytes(), file.read_bytes()) == (b"new", b"old")
    assert stat.S_IMODE(link.stat().st_mode) == 0o640


async def test_a_directory_behind_a_link_is_reached(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    await write_atomically(tmp_path / "link" / "a", b"x")
    await remove_durably(tmp_path / "link" / "a")
    assert list((tmp_path / "real").iterdir()) == []
