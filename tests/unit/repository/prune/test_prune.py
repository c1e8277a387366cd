"""What a prune removes, and what it must not, whatever else goes on."""

import os
import random
import tempfile
from functools import partial
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.repository_files import files_of
from fakes.small_repository import PACKAGER, SmallRepository, content, ids_of
from virtbackup_async.errors import CorruptError, LockHeldError, StorageError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.packagers.registry import open_reader
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository.data.chunk_writer import ChunkWriters
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.format.chunks import chunk_id
from virtbackup_async.repository.index.segments import open_index
from virtbackup_async.repository.prune import prune as pruning
from virtbackup_async.repository.storage.layout import new_token
from virtbackup_async.repository.storage.leases import EXPIRY_S, PRUNER, take_lease
from virtbackup_async.repository.storage.repository_file import find_repository, make_repository


def named(data):
    return {chunk_id(data): memoryview(data)}


def open_in_new_process(place):
    """A writer that knows of no other one."""
    return ChunkWriters().open(find_repository(place.location), 1)


@pytest.fixture
def place(tmp_path):
    return SmallRepository(tmp_path / "target")


BACKUPS = st.lists(st.integers(0, 6), min_size=1, max_size=8)
STEPS = st.lists(st.one_of(BACKUPS, st.integers(0, 9), st.just("prune")), max_size=10)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_whatever_is_removed_the_rest_restores_and_nothing_leaks(steps):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        anyio.run(partial(take_steps, SmallRepository(Path(directory) / "target"), steps))


async def take_steps(place, steps):
    make_repository(place.location)
    alive = {}
    for count, step in enumerate([*steps, "prune"]):
        match step:
            case list():
                name = f"20260301-0215{count:02}_3_web"
                await place.back_up(name, content(step))
                alive[name] = content(step)
            case int() if alive:
                name = sorted(alive)[step % len(alive)]
                place.remove(name)
                del alive[name]
            case "prune":
                place.prune()
                for name, data in alive.items():
                    assert await place.restored(name) == data
                assert_no_leak(place, alive.values())


def assert_no_leak(place, images):
    wanted = {chunk_id(content([n])) for data in images for n in numbers(data)}
    indexed = place.indexed()
    assert wanted <= set(indexed)
    assert len(indexed) == len(set(indexed)), "a chunk is stored twice"
    # What is dead may stay in packs that are mostly alive.
    assert len(indexed) <= 2 * len(wanted)
    assert bool(place.packs()) == bool(wanted)


def numbers(data):
    step = len(content([0]))
    return {int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), step)} - {0}


async def test_space_comes_back_and_is_told(place):
    await place.back_up("a", content(range(1, 20)))
    await place.back_up("b", content(range(1, 3)))
    stored = sum(path.stat().st_size for path in place.packs())
    assert place.prune().freed_bytes == 0
    place.remove("a")
    pruned = place.prune()
    assert pruned.freed_bytes == stored
    left = sum(path.stat().st_size for path in place.packs())
    assert pruned.stored_bytes == left < stored
    assert 0 < pruned.rewritten_bytes < left
    assert await place.restored("b") == content(range(1, 3))
    place.remove("b")
    assert place.prune().freed_bytes == left
    assert place.packs() == []
    assert place.indexed() == []


async def test_nothing_goes_while_a_writer_may_count_on_it(place):
    data = content([1, 2, 3])
    await place.back_up("a", data)
    place.remove("a")
    writer = open_in_new_process(place)
    assert writer.add(named(content([1]))) == 0, "it is there already"
    pruned = place.prune()
    assert (pruned.freed_bytes, pruned.waiting_bytes) == (0, pruned.stored_bytes)
    # A writer that comes now does not count on what is condemned.
    late = open_in_new_process(place)
    assert late.add(named(content([2]))) > 0
    assert place.prune().freed_bytes == 0
    writer.close()
    assert place.prune().freed_bytes > 0, "the late one is not waited for"
    late.close()


async def test_a_writer_on_another_host_is_waited_for_as_long_as_it_says_that_it_lives(place):
    await place.back_up("a", content([1, 2, 3]))
    place.remove("a")
    elsewhere = files_of(find_repository(place.location)).leases / new_token()
    elsewhere.write_bytes(sealed_json.dumps({"host": "another host", "pid": 1}))
    for _ in range(2):
        assert place.prune().waiting_bytes > 0
    assert place.packs()
    # An hour by the clock of the file system, whatever the hosts' clocks say.
    touched_s = elsewhere.stat().st_mtime - EXPIRY_S - 1
    os.utime(elsewhere, (touched_s, touched_s))
    assert place.prune().freed_bytes > 0
    assert not place.packs()
    assert not elsewhere.exists(), "so that it knows, if it is alive after all"


async def test_a_sweep_that_died_on_another_host_is_waited_for_an_hour(place):
    await place.back_up("a", content([1]))
    elsewhere = files_of(find_repository(place.location)).leases / PRUNER
    elsewhere.write_bytes(sealed_json.dumps({"host": "another host", "pid": 1}))
    with pytest.raises(LockHeldError):
        place.prune()
    touched_s = elsewhere.stat().st_mtime - EXPIRY_S - 1
    os.utime(elsewhere, (touched_s, touched_s))
    place.prune()
    assert not elsewhere.exists()


async def test_what_a_writer_needed_after_all_is_kept(place):
    data = content([1, 2, 3])
    await place.back_up("a", data)
    place.remove("a")
    writer = open_in_new_process(place)
    assert place.prune().waiting_bytes > 0
    assert place.packs()
    writer.close()
    # As if it was that writer: it found its chunks in the condemned pack, and has its map.
    files_of(find_repository(place.location)).pending_deletion.rename(place.target / "aside")
    await place.back_up("b", data)
    (place.target / "aside").rename(files_of(find_repository(place.location)).pending_deletion)
    assert place.prune().freed_bytes == 0
    assert await place.restored("b") == data
    assert len(place.packs()) == 1
    assert not files_of(find_repository(place.location)).pending_deletion.exists()


async def test_a_reader_finds_what_has_moved(place):
    await place.back_up("a", content(range(1, 20)))
    await place.back_up("b", content([1, 2]))
    data = await swept_while_read(place)
    assert data == content([1, 2])


async def swept_while_read(place):
    data = b""
    async with (
        open_reader(PACKAGER, place.directory, "b", BufferPool()) as package,
        package.open_disk("b_vda.raw") as stream,
    ):
        place.remove("a")
        assert place.prune().rewritten_bytes
        async for chunk in stream.pieces():
            data += bytes(chunk.data)
    return data


@pytest.mark.parametrize("is_going", [False, True], ids=["nothing-goes", "something-goes"])
def test_a_backup_that_ends_while_the_sweep_opens_the_index_is_no_damage(
    place, monkeypatch, is_going
):
    anyio.run(place.back_up, "a", content([1, 2]))
    anyio.run(place.back_up, "b", content([3]))
    if is_going:
        place.remove("b")
    coming = iter(["c", "d"])

    def open_and_back_up(repository):
        index = open_index(repository)
        for name in coming:
            anyio.run(place.back_up, name, content([4 + ord(name), 1]))
            break
        return index

    monkeypatch.setattr(pruning, "open_index", open_and_back_up)
    place.prune()
    monkeypatch.undo()
    place.prune()
    for name in "cd" if is_going else "c":
        assert anyio.run(place.restored, name) == content([4 + ord(name), 1])


async def test_two_sweeps_are_not_at_once(place):
    await place.back_up("a", content([1]))
    lease = take_lease(find_repository(place.location).storage, PRUNER)
    with pytest.raises(LockHeldError):
        place.prune()
    lease.close()
    place.prune()


async def test_a_prune_whose_lease_was_broken_by_another_does_not_end_as_if_it_was_alone(place):
    await place.back_up("a", content([1]))
    repository = find_repository(place.location)
    lease = files_of(repository).leases / PRUNER

    def lose_it():
        lease.unlink(missing_ok=True)

    with pytest.raises(LockHeldError, match="was broken"):
        pruning.prune_repository(repository, partial(list_maps, repository.storage), lose_it)
    assert await place.restored("a") == content([1])


@pytest.mark.parametrize("damage", ["map", "segment", "no segment"])
async def test_nothing_goes_while_it_is_not_known_what_is_needed(place, damage):
    await place.back_up("a", content([1, 2]))
    await place.back_up("b", content([3]))
    place.remove("b")
    (segment, *_) = sorted(files_of(find_repository(place.location)).index.iterdir())
    packs = place.packs()
    match damage:
        case "map":
            flip(place.map_path("a"), 60)
        case "segment":
            flip(segment, 60)
        case "no segment":
            for path in files_of(find_repository(place.location)).index.iterdir():
                path.unlink()
    with pytest.raises(CorruptError):
        place.prune()
    assert place.packs() == packs


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


async def test_a_damaged_chunk_is_not_copied_and_its_pack_stays(place):
    await place.back_up("a", content(range(1, 20)))
    await place.back_up("b", content([1]))
    (pack,) = place.packs()
    flip(pack, 64 + 64 + 10)
    place.remove("a")
    assert place.prune().freed_bytes == 0
    assert place.packs() == [pack]


async def back_up_apart(place, name, data):
    """Make a backup as a writer does that began before the others had ended."""
    index = files_of(find_repository(place.location)).index
    aside = index.with_name("aside")
    index.rename(aside)
    index.mkdir()
    await place.back_up(name, data)
    for path in aside.iterdir():
        path.rename(index / path.name)
    aside.rmdir()


@pytest.mark.parametrize("others", [[], [12]], ids=["dead", "mostly dead"])
async def test_the_good_place_of_a_chunk_stays_if_the_one_to_be_copied_is_damaged(place, others):
    await place.back_up("a", content(range(1, 10)))
    (damaged,) = place.packs()
    await back_up_apart(place, "b", content([1, 11, 12, 13]))
    (good,) = set(place.packs()) - {damaged}
    await place.back_up("c", content([1, *others]))
    place.remove("a")
    place.remove("b")
    flip(damaged, 64 + 64 + 10)
    for _ in range(2):
        place.prune()
        assert await place.restored("c") == content([1, *others])
        assert set(place.packs()) >= {damaged, good}


@pytest.mark.parametrize("removed", ["a", "b"])
async def test_the_last_good_copy_of_a_chunk_stays_in_a_pack_that_is_dead(place, removed):
    """Its other copy is in a pack that nobody touches, and so nobody reads."""
    left = {"a": range(1, 5), "b": range(1, 4)}
    await place.back_up("a", content(left["a"]))
    (first,) = place.packs()
    await back_up_apart(place, "b", content(left["b"]))
    (second,) = set(place.packs()) - {first}
    flip(first if removed == "b" else second, 64 + 64 + 10)
    place.remove(removed)
    del left[removed]
    for _ in range(3):
        place.prune()
        ((name, numbers_left),) = left.items()
        assert await place.restored(name) == content(numbers_left)


async def test_a_second_copy_goes_where_the_first_is_good(place):
    await place.back_up("a", content(range(1, 5)))
    await back_up_apart(place, "b", content(range(1, 4)))
    place.remove("b")
    for _ in range(2):
        place.prune()
    assert await place.restored("a") == content(range(1, 5))
    assert len(place.packs()) == 1
    assert len(place.indexed()) == 4


@pytest.fixture
def memory():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory)


APART = st.lists(
    st.tuples(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.booleans()),
    min_size=2,
    max_size=4,
)


@settings(max_examples=30, deadline=None)
@given(APART, st.randoms(use_true_random=False))
def test_whatever_is_rotten_no_last_good_copy_goes(backups, chance):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        place = SmallRepository(Path(directory) / "target")
        anyio.run(partial(rot_and_sweep, place, backups, chance))


async def test_a_pack_that_stays_for_one_chunk_is_read_for_the_others_too(memory):
    """A chunk has three copies: in it, where it would have been copied, and in two dead packs."""
    backups = [([1], False), ([3, 6, 2], True), ([1, 2], True), ([4, 3, 1], False)]
    for seed in range(40):
        await rot_and_sweep(SmallRepository(memory / str(seed)), backups, random.Random(seed))


async def rot_and_sweep(place, backups, chance):
    """Each backup has packs of its own; of each chunk one copy stays good."""
    make_repository(place.location)
    alive = {}
    for number, (chunks, is_kept) in enumerate(backups):
        name = f"20260301-0215{number:02}_3_web"
        await back_up_apart(place, name, content(chunks))
        alive[name] = content(chunks)
        if not is_kept:
            place.remove(name)
            del alive[name]
    for copies in copies_in(place).values():
        chance.shuffle(copies)
        for location in copies[1:]:
            if chance.random() < 0.7:
                path = files_of(find_repository(place.location)).pack(location.pack)
                flip(path, location.offset + location.length // 2)
    for _ in range(3):
        place.prune()
        for name, data in alive.items():
            assert await place.restored(name) == data


def copies_in(place):
    index = open_index(find_repository(place.location))
    ids = sorted({id_ for segment in index.segments for id_ in ids_of(segment)})
    try:
        return {id_: list(index.places(id_)) for id_ in ids}
    finally:
        index.close()


async def test_what_is_in_two_packs_takes_a_second_sweep_and_no_more(place):
    """It is copied out of the first; of the other one it is needed only when that comes first."""
    await place.back_up("a", content(range(1, 10)))
    await back_up_apart(place, "b", content([1, 11, 12, 13]))
    await place.back_up("c", content([1]))
    place.remove("a")
    assert place.prune().rewritten_bytes > 0
    for is_left in (True, False):
        pruned = place.prune()
        assert bool(pruned.freed_bytes) == is_left
        assert await place.restored("b") == content([1, 11, 12, 13])
        assert await place.restored("c") == content([1])
    assert len(place.indexed()) == len(set(place.indexed()))


async def test_damage_is_told_by_its_place_in_the_image(place):
    await place.back_up("a", content([1, 0, 2]))
    (pack,) = place.packs()
    flip(pack, pack.stat().st_size - 1)
    with pytest.raises(
        CorruptError, match=r"256\.0 KiB at 512\.0 KiB of a_vda\.raw: pack .*\.pack"
    ):
        await place.restored("a")
    pack.unlink()
    with pytest.raises(CorruptError, match=r"256\.0 KiB at 0 B of .*: pack is missing"):
        await place.restored("a")


async def test_many_small_segments_become_one(place):
    for number in range(1, 12):
        await place.back_up(f"b{number}", content([number]))
    place.prune()
    assert len(list(files_of(find_repository(place.location)).index.iterdir())) == 1
    for number in range(1, 12):
        assert await place.restored(f"b{number}") == content([number])


async def test_small_segments_become_one_while_a_prune_waits_for_a_writer(place):
    """Of many hosts one has often died a moment ago; others must not read ever more segments."""
    await place.back_up("gone", content([90, 91]))
    living = open_in_new_process(place)
    place.remove("gone")
    try:
        assert place.prune().waiting_bytes > 0
        for number in range(1, pruning.MAX_SEGMENTS + 2):
            await place.back_up(f"b{number}", content([number]))
        assert len(place.segments()) > pruning.MAX_SEGMENTS
        assert place.prune().waiting_bytes > 0
        assert len(place.segments()) <= 2
        assert {chunk_id(content([90])), chunk_id(content([1]))} < set(place.indexed())
    finally:
        living.close()
    assert place.prune().freed_bytes > 0
    assert await place.restored("b1") == content([1])
    assert chunk_id(content([90])) not in place.indexed()


@pytest.mark.parametrize("is_there", [True, False], ids=["moved", "not mounted"])
async def test_a_domain_that_cannot_be_seen_keeps_its_chunks(place, tmp_path, is_there):
    """Its directory was moved to another disk, and a link was left."""
    await place.back_up("a", content([1, 2]))
    packs = place.packs()
    moved = tmp_path / "moved"
    place.directory.rename(moved)
    place.directory.symlink_to(moved if is_there else tmp_path / "nowhere")
    with pytest.raises(StorageError, match="a symlink, not followed"):
        place.prune()
    assert place.packs() == packs
    place.directory.unlink()
    moved.rename(place.directory)
    (place.target / "latest").symlink_to(place.map_path("a"))
    place.prune()
    assert place.packs() == packs
