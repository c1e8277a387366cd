"""files/lacks.py and trial.py: what a file system lacks is noted, and trouble is not called so."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from virtbackup_async.engine.doctor.target import check_target
from virtbackup_async.errors import StorageError
from virtbackup_async.events import Level
from virtbackup_async.files import lacks
from virtbackup_async.files.lacks import Lack
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.files.trial import lacks_of
from virtbackup_async.model.storage_location import StorageLocation

CALLS = {
    Lack.SYNC: (os, "fsync", errno.EINVAL),
    Lack.LINKS: (os, "link", errno.EPERM),
    Lack.MODES: (os, "fchmod", errno.EPERM),
    Lack.LOCKS: (fcntl, "flock", errno.ENOLCK),
}


@pytest.fixture
def target(tmp_path):
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def refuse(monkeypatch, lack, code=None):
    """Let the call fail that the lack is about; of fsync, that of a directory."""
    module, name, usual = CALLS[lack]
    real = getattr(module, name)

    def refusing(*args, **options):
        if lack is Lack.SYNC and not Path(f"/proc/self/fd/{args[0]}").readlink().is_dir():
            return real(*args, **options)
        number = usual if code is None else code
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, name, refusing)


def work(place):
    """Do with a file all that something may be lacking for."""
    TargetPath(place.target).sync_names()
    place.write_new(b"x")
    place.replace(b"y", place)
    fd = place.open_file()
    assert lacks.lock(fd, fcntl.LOCK_EX, place.target)
    os.close(fd)
    place.rename_exclusively("new")


@pytest.mark.parametrize("lack", list(Lack))
def test_a_lack_is_worked_round_and_told_once(target, monkeypatch, lack):
    lacks.take_untold()
    refuse(monkeypatch, lack)
    work(TargetPath(target) / "a")
    (target / "new").unlink()
    work(TargetPath(target) / "a")
    assert (target / "new").read_bytes() == b"y"
    assert lacks.take_untold() == [f"the file system of {target} {lack}"]
    assert lacks.take_untold() == []


def test_nothing_is_told_where_nothing_lacks(target):
    lacks.take_untold()
    work(TargetPath(target) / "a")
    assert lacks.take_untold() == []


@pytest.mark.parametrize("lack", [Lack.SYNC, Lack.LINKS, Lack.MODES])
@pytest.mark.parametrize("code", sorted(lacks.FAILURES))
def test_trouble_is_an_error(target, monkeypatch, lack, code):
    refuse(monkeypatch, lack, code)
    with pytest.raises(StorageError):
        work(TargetPath(target) / "a")


def test_a_lock_that_is_held_is_no_lack(target):
    place = TargetPath(target) / "a"
    place.write_new(b"x")
    first, second = place.open_file(), place.open_file()
    assert lacks.lock(first, fcntl.LOCK_EX, target)
    assert not lacks.lock(second, fcntl.LOCK_SH, target)
    os.close(first)
    os.close(second)


@pytest.mark.parametrize("lack", list(Lack))
async def test_doctor_tries_it_and_leaves_nothing(target, monkeypatch, lack):
    refuse(monkeypatch, lack)
    found = [
        finding
        for finding in await check_target(StorageLocation.of(target))
        if "file system" in finding.message
    ]
    assert (Level.WARNING, f"its file system {lack}") in [(f.level, f.message) for f in found]
    assert list(target.iterdir()) == []


def test_a_file_system_that_keeps_another_mode_lacks_modes(target, monkeypatch):
    monkeypatch.setattr(os, "fchmod", lambda _fd, _mode: None)
    assert lacks_of(target) == [Lack.MODES]


def test_trouble_while_it_is_tried_is_an_error(target, monkeypatch):
    refuse(monkeypatch, Lack.SYNC, errno.EIO)
    with pytest.raises(StorageError, match="cannot use"):
        lacks_of(target)
    assert list(target.iterdir()) == []
