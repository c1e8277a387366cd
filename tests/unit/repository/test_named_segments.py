"""A segment that has its name is counted on: what it names stays, whatever fails next."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from fakes.failing_calls import failing
from fakes.repository_files import files_of
from fakes.small_repository import SmallRepository, content
from virtbackup_async.errors import StorageError
from virtbackup_async.repository.data import chunk_writer
from virtbackup_async.repository.index import segment_writer
from virtbackup_async.repository.index.segments import open_index
from virtbackup_async.repository.prune import prune as pruning
from virtbackup_async.repository.storage.layout import list_segments, segment_file
from virtbackup_async.repository.storage.repository_file import find_repository, make_repository

DATA = content([1, 2, 3])
CODES = [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS]


@pytest.fixture
def place(tmp_path):
    return SmallRepository(tmp_path / "target")


def is_index(path: Path) -> bool:
    return path.name == "index"


def is_segment(path: Path) -> bool:
    return path.suffix == ".index"


def assert_names_only_what_is_there(place):
    repository = find_repository(place.location)
    index = open_index(repository)
    try:
        named = {pack for segment in index.segments for pack in segment.packs}
    finally:
        index.close()
    assert all(files_of(repository).pack(pack).exists() for pack in named)


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
async def test_a_backup_whose_segment_cannot_be_synced_takes_nothing_back(place, code):
    await place.back_up("first", content([9]))
    with failing("fsync", is_index, code) as failed, pytest.raises(StorageError):
        await place.back_up("new", DATA)
    assert failed
    assert_names_only_what_is_there(place)
    await place.back_up("next", DATA)
    assert await place.restored("next") == DATA


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
async def test_a_sweep_whose_segment_cannot_be_synced_takes_nothing_back(place, code):
    await place.back_up("gone", content(range(1, 9)))
    await place.back_up("kept", content([2]))
    place.remove("gone")
    # One that is full may end with what there was room for.
    with failing("fsync", is_index, code) as failed, suppress(StorageError):
        place.prune()
    assert failed
    assert_names_only_what_is_there(place)
    place.prune()
    assert await place.restored("kept") == content([2])
    assert_names_only_what_is_there(place)


async def test_a_segment_that_cannot_be_read_back_keeps_what_it_names(place, monkeypatch):
    def refuse(*_):
        raise StorageError("it cannot be read")

    monkeypatch.setattr(chunk_writer, "open_segment", refuse)
    with pytest.raises(StorageError):
        await place.back_up("new", DATA)
    monkeypatch.undo()
    assert_names_only_what_is_there(place)
    await place.back_up("next", DATA)
    assert await place.restored("next") == DATA


async def test_a_rename_that_was_done_and_is_denied_keeps_what_it_names(place, monkeypatch):
    rename = os.rename

    def deny(path, new, **options):
        rename(path, new, **options)
        if is_segment(Path(new)):
            raise OSError(errno.EIO, "lost answer")

    monkeypatch.setattr(os, "rename", deny)
    with pytest.raises(StorageError):
        await place.back_up("new", DATA)
    monkeypatch.undo()
    assert_names_only_what_is_there(place)
    await place.back_up("next", DATA)
    assert await place.restored("next") == DATA


async def test_a_segment_without_its_name_leaves_no_pack_behind(place):
    await place.back_up("first", content([9]))
    packs = place.packs()
    with failing("rename", is_segment, errno.ENOSPC) as failed, pytest.raises(StorageError):
        await place.back_up("new", DATA)
    assert failed
    assert place.packs() == packs
    assert [path.name for path in files_of(find_repository(place.location)).index.glob(".*")] == []


async def test_a_merge_that_fails_behind_the_name_loses_nothing(place, monkeypatch):
    monkeypatch.setattr(pruning, "MAX_SEGMENTS", 2)
    for number in range(1, 5):
        await place.back_up(f"n{number}", content([number]))
    with failing("fsync", is_index, errno.EIO) as failed, suppress(StorageError):
        place.prune()
    assert failed
    for number in range(1, 5):
        assert await place.restored(f"n{number}") == content([number])
    place.prune()
    assert len(list_segments(find_repository(place.location).storage)) == 1
    for number in range(1, 5):
        assert await place.restored(f"n{number}") == content([number])


async def test_a_temporary_segment_that_cannot_be_removed_hides_no_failure(place):
    await place.back_up("first", content([9]))
    with (
        failing("fdatasync", lambda path: path.parent.name == "index", errno.EIO),
        failing("unlink", lambda path: path.name.startswith("."), errno.EIO),
        pytest.raises(StorageError, match="sync"),
    ):
        await place.back_up("new", DATA)


def test_nothing_is_named_before_the_caller_knows(place, monkeypatch):
    order = []
    rename = os.rename

    def note_rename(path, new, **options):
        order.append("name")
        rename(path, new, **options)

    repository = make_repository(place.location)
    monkeypatch.setattr(os, "fsync", lambda _: order.append("sync"))
    monkeypatch.setattr(os, "rename", note_rename)
    name = segment_file("00" * 12, 0)
    segment_writer.write_segment(
        repository, name, segment_writer.content_of([]), lambda: order.append("told")
    )
    assert order == ["name", "told", "sync"]
