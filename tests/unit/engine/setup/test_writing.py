"""A new configuration is written whole, with its target, or nothing is left."""

import os
import stat

import pytest
from anyio import CancelScope, create_task_group
from anyio.lowlevel import checkpoint

from virtbackup_async.engine.setup import writing
from virtbackup_async.engine.setup.writing import write_new_config
from virtbackup_async.errors import StorageError


def everything(place):
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


async def test_file_and_target_are_made_with_what_is_above_them(tmp_path):
    path, target = tmp_path / "etc" / "virt-backup" / "config.yml", tmp_path / "mnt" / "virtbackup"
    umask = os.umask(0)
    try:
        assert await write_new_config(path, b"x: 1\n", target) is None
    finally:
        os.umask(umask)
    assert path.read_bytes() == b"x: 1\n"
    modes = [stat.S_IMODE(at.stat().st_mode) for at in (path, path.parent, target)]
    assert modes == [0o600, 0o755, 0o700]
    assert everything(path.parent) == ["config.yml"]


async def test_a_target_that_is_there_stays_as_it_is(tmp_path):
    target = tmp_path / "target"
    target.mkdir(mode=0o750)
    await write_new_config(tmp_path / "config.yml", b"", target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o750


async def test_a_file_that_is_there_is_not_replaced(tmp_path):
    path = tmp_path / "config.yml"
    path.write_text("mine")
    with pytest.raises(StorageError):
        await write_new_config(path, b"new", tmp_path / "target")
    assert path.read_text() == "mine"
    assert everything(tmp_path) == ["config.yml"]


async def test_if_it_may_be_replaced_the_old_one_stays_beside(tmp_path):
    path = tmp_path / "config.yml"
    path.write_text("mine")
    path.chmod(0o640)
    old = await write_new_config(path, b"new", tmp_path, replace=True)
    assert old == tmp_path / "config.yml.bak"
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert old.read_text() == "mine"
    with pytest.raises(StorageError):  # the oldest one is not lost either
        await write_new_config(path, b"newer", tmp_path, replace=True)
    assert path.read_text() == "new"


async def test_a_link_stays_one(tmp_path):
    (tmp_path / "real.yml").write_text("mine")
    (tmp_path / "config.yml").symlink_to("real.yml")
    await write_new_config(tmp_path / "config.yml", b"new", tmp_path, replace=True)
    assert (tmp_path / "config.yml").is_symlink()
    assert (tmp_path / "real.yml").read_text() == "new"


async def test_a_target_that_cannot_be_made_leaves_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        await write_new_config(tmp_path / "etc" / "config.yml", b"", tmp_path / "file" / "target")
    assert everything(tmp_path) == ["file"]


async def test_a_cancellation_comes_after_all_of_it(tmp_path, monkeypatch):
    real = writing.write_exclusively
    scope = CancelScope()

    async def cancelled(path, data):
        scope.cancel()
        await real(path, data)

    monkeypatch.setattr(writing, "write_exclusively", cancelled)
    with scope:
        await write_new_config(tmp_path / "config.yml", b"all", tmp_path / "target")
        await checkpoint()
    assert scope.cancelled_caught
    assert everything(tmp_path) == ["config.yml", "target"]
    assert (tmp_path / "config.yml").read_bytes() == b"all"


async def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    async def full(path, new):
        raise StorageError("target is full")

    monkeypatch.setattr(writing, "rename_exclusively", full)
    with pytest.raises(StorageError, match="full"):
        await write_new_config(tmp_path / "etc" / "config.yml", b"", tmp_path / "mnt" / "target")
    assert everything(tmp_path) == []


async def test_of_two_at_once_one_writes_and_its_target_stays(tmp_path):
    path, target = tmp_path / "etc" / "config.yml", tmp_path / "mnt" / "target"
    refused = []

    async def write(data):
        try:
            await write_new_config(path, data, target)
        except StorageError:
            refused.append(data)

    async with create_task_group() as tasks:
        for data in (b"one", b"two"):
            tasks.start_soon(write, data)
    (loser,) = refused
    assert path.read_bytes() in {b"one", b"two"} - {loser}
    assert everything(tmp_path) == ["etc", "etc/config.yml", "mnt", "mnt/target"]


async def test_who_is_too_late_leaves_the_directories_of_the_other(tmp_path, monkeypatch):
    path, target = tmp_path / "etc" / "config.yml", tmp_path / "mnt" / "target"
    real = writing.make_private

    def overtaken(directory):
        directory.mkdir(parents=True)  # the other is faster, and has put nothing into it yet
        return real(directory)

    async def full(path, new):
        raise StorageError("target is full")

    path.parent.mkdir()
    monkeypatch.setattr(writing, "make_private", overtaken)
    monkeypatch.setattr(writing, "rename_exclusively", full)
    with pytest.raises(StorageError, match="full"):
        await write_new_config(path, b"late", target)
    assert everything(tmp_path) == ["etc", "mnt", "mnt/target"]


async def test_a_configuration_that_may_be_on_disk_keeps_its_target(tmp_path, monkeypatch):
    async def failed(path):
        raise StorageError("the storage failed")

    monkeypatch.setattr(writing, "sync_directory", failed)
    with pytest.raises(StorageError, match="storage failed"):
        await write_new_config(tmp_path / "config.yml", b"all", tmp_path / "target")
    assert everything(tmp_path) == ["config.yml", "target"]


async def test_a_replacement_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    async def full(path, data, *, keep_owner):
        raise StorageError("target is full")

    path = tmp_path / "config.yml"
    path.write_text("mine")
    monkeypatch.setattr(writing, "write_atomically", full)
    with pytest.raises(StorageError, match="full"):
        await write_new_config(path, b"new", tmp_path / "target", replace=True)
    assert path.read_text() == "mine"
    assert everything(tmp_path) == ["config.yml"]
