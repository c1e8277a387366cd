"""Packs that are lost, cut off or exchanged: they count as not there, and nothing else goes."""

import os
import shutil

import pytest

from fakes.repaired import repair
from fakes.repository_files import files_of
from fakes.small_repository import SmallRepository, content
from virtbackup_async.errors import CorruptError
from virtbackup_async.repository.data.chunk_writer import ChunkWriters
from virtbackup_async.repository.data.known_damage import (
    KnownDamage,
    MapDamage,
    content_of_map,
    write_known_damage,
)
from virtbackup_async.repository.storage.layout import list_packs
from virtbackup_async.repository.storage.pending_deletion import (
    PendingDeletion,
    write_pending_deletion,
)
from virtbackup_async.repository.storage.repository_file import find_repository

OLD = content([1, 2, 3])
NEW = content([3, 4])


@pytest.fixture
def place(tmp_path):
    return SmallRepository(tmp_path / "target")


def lose(pack):
    pack.unlink()


def cut(pack):
    os.truncate(pack, pack.stat().st_size - 1)


def empty(pack):
    os.truncate(pack, 0)


def link(pack):
    moved = pack.with_name("moved")
    pack.rename(moved)
    pack.symlink_to(moved)


def replace_by_directory(pack):
    pack.unlink()
    pack.mkdir()


def lose_directory(pack):
    shutil.rmtree(pack.parent)


HARMS = [lose, cut, empty, link, replace_by_directory, lose_directory]


@pytest.mark.parametrize("harm", HARMS)
async def test_the_next_backup_stores_what_was_in_a_pack_that_does_not_fit(place, harm):
    await place.back_up("old", OLD)
    (pack,) = place.packs()
    harm(pack)
    await place.back_up("again", OLD)
    assert await place.restored("again") == OLD
    assert await place.restored("old") == OLD


@pytest.mark.parametrize("harm", HARMS)
async def test_a_sweep_removes_nothing_until_there_was_a_repair(place, harm):
    await place.back_up("gone", content([7, 8]))
    await place.back_up("old", OLD)
    place.remove("gone")
    first, last = sorted(place.packs(), key=lambda path: path.stat().st_mtime_ns)
    harm(last)
    with pytest.raises(CorruptError, match="pack is") as raised:
        place.prune()
    assert raised.value.hint == "Run 'virtbackup repair'."
    assert first.exists()
    await place.back_up("again", OLD)
    with pytest.raises(CorruptError, match="pack is"):
        place.prune()
    repair(place)
    place.prune()
    assert not first.exists()
    assert await place.restored("old") == await place.restored("again") == OLD


async def test_a_problem_is_told_once_and_names_the_pack(place):
    await place.back_up("old", OLD)
    (pack,) = place.packs()
    cut(pack)
    process = ChunkWriters()
    both = [process.open(find_repository(place.location), 1) for _ in range(2)]
    first, second = [writer.take_problem() for writer in both]
    for writer in both:
        writer.close()
    assert str(pack) in first
    assert "cut off" in first
    assert second is None


async def test_an_incremental_backup_takes_nothing_over_from_a_lost_pack(place):
    await place.back_up("old", OLD)
    before = place.packs()
    await place.back_up("more", content([1, 9]))
    (pack,) = set(place.packs()) - set(before)
    lose(pack)
    writer = ChunkWriters().open(find_repository(place.location), 1)
    chunk_map = place.open_map("more")
    try:
        missing = writer.are_missing(block["leaf"] for block in chunk_map.blocks())
    finally:
        chunk_map.close()
        writer.close()
    assert missing.tolist() == [False, True]


async def test_an_index_that_is_older_than_the_packs_lets_nothing_go(place, tmp_path):
    await place.back_up("gone", content(range(1, 9)))
    await place.back_up("kept", content([2]))
    place.remove("gone")
    index = files_of(find_repository(place.location)).index
    shutil.copytree(index, tmp_path / "index")
    place.prune()  # packs the one chunk anew
    shutil.rmtree(index)
    shutil.copytree(tmp_path / "index", index)
    packs = place.packs()
    with pytest.raises(CorruptError, match="pack is missing"):
        place.prune()
    assert place.packs() == packs
    repair(place)
    place.prune()
    assert await place.restored("kept") == content([2])


async def test_condemned_packs_stay_that_may_hold_what_is_known_to_be_lost(place):
    await place.back_up("kept", OLD)
    repository = find_repository(place.location)
    for segment in files_of(repository).index.iterdir():
        segment.unlink()
    storage = repository.storage
    name = place.map_name("kept")
    known = MapDamage(content_of_map(storage, name), 3, is_damaged=False)
    write_known_damage(storage, KnownDamage({name: known}))
    write_pending_deletion(storage, PendingDeletion(frozenset(list_packs(storage)), frozenset()))
    place.prune()
    repair(place)
    assert await place.restored("kept") == OLD


async def test_a_condemned_pack_that_is_needed_after_all_and_lost_stops_the_sweep(place):
    await place.back_up("gone", content([7]))
    (other,) = place.packs()
    await place.back_up("kept", OLD)
    place.remove("gone")
    repository = find_repository(place.location)
    packs = frozenset(list_packs(repository.storage))
    (pack,) = set(place.packs()) - {other}
    lose(pack)
    write_pending_deletion(repository.storage, PendingDeletion(packs, frozenset()))
    with pytest.raises(CorruptError, match="pack is missing"):
        place.prune()
    assert other.exists()


async def test_a_pack_of_which_the_index_knows_a_part_is_read_by_the_repair(place):
    """As after a repair of a pack that was cut off, and has come back whole."""
    await place.back_up("old", OLD)
    (pack,) = place.packs()
    whole = pack.read_bytes()
    cut(pack)
    repair(place)
    assert len(place.indexed()) == 2
    pack.write_bytes(whole)
    repair(place)
    assert len(place.indexed()) == 3
    assert await place.restored("old") == OLD
    repair(place)
    assert len(place.indexed()) == 3
