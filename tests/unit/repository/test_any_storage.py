"""A repository needs of a storage what the interface has, and survives each call that fails."""

from contextlib import closing, suppress
from itertools import count

import pytest

from fakes.failing_storage import FailingStorage
from fakes.memory_storage import MemoryStorage
from fakes.small_repository import content
from object_stores import memory_object_storage, new_storage
from virtbackup_async.errors import LockHeldError, StorageError
from virtbackup_async.repository import (
    CHUNK_BYTES,
    Check,
    CheckSession,
    ChunkReader,
    ChunkWriters,
    MapEntry,
    MapFile,
    MapHead,
    MapWriter,
    drop_bad_entries,
    entries_of,
    exclusive_usage,
    need_map,
    note_known_damage,
    open_map,
    prune_repository,
    reindex_packs,
    total_usage,
)
from virtbackup_async.repository.format.chunks import ALL_PAGES, chunk_id
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.local import LocalStorage
from virtbackup_async.repository.storage.repository_file import find_in, make_in

IMAGES = {"kept": [1, 2, 3], "gone": [4, 5, 6, 7, 1]}
CHUNKS = {n: content([n]) for n in range(1, 10)}


def on_step():
    """Go on."""


@pytest.fixture(params=["local", "memory", "objects", "seaweed"])
def storage(request, tmp_path):
    if request.param == "objects":
        return memory_object_storage()
    if request.param == "seaweed":
        return new_storage(request.getfixturevalue("object_server"))
    made = MemoryStorage()
    if request.param == "local":
        made = LocalStorage(tmp_path, ".virtbackup-repository")
    made.make_directory("web")
    return made


def back_up(storage, name, chunks):
    """Store an image of numbered chunks, as the packager does."""
    repository = make_in(storage)
    with closing(ChunkWriters().open(repository, 1)) as writer:
        head = MapHead(repository.id, len(chunks) * CHUNK_BYTES)
        image = MapWriter(storage, f"web/{name}.map", head)
        try:
            data = {chunk_id(CHUNKS[n]): memoryview(CHUNKS[n]) for n in chunks}
            writer.add(data)
            entries = [MapEntry(at, ALL_PAGES, id_) for at, id_ in enumerate(ids_of(chunks))]
            image.add(entries_of(entries))
            image.finish()
            writer.publish()
            image.publish()
            storage.sync_names("web")
            writer.check()
        finally:
            image.discard()


def ids_of(chunks):
    return [chunk_id(CHUNKS[n]) for n in chunks]


def maps_in(storage):
    return [MapFile(f"web/{name}", name) for name in storage.names("web", {Kind.FILE})]


def restored(storage):
    """Every image that has a map, read back chunk by chunk."""
    images = {}
    for file in maps_in(storage):
        with (
            closing(open_map(storage, file.name)) as image,
            closing(ChunkReader(find_in(storage))) as chunks,
        ):
            images[file.disk.removesuffix(".map")] = [
                bytes(chunks.read(entry.leaf)) for entry in image.entries()
            ]
    return images


def expected(*names):
    return {name: [CHUNKS[n] for n in IMAGES[name]] for name in names}


def prune(storage):
    return prune_repository(make_in(storage), lambda: maps_in(storage), on_step)


def packs_in(storage):
    top = ".virtbackup-repository/packs"
    prefixes = storage.names(top, {Kind.DIRECTORY})
    return [f"{top}/{p}/{n}" for p in prefixes for n in storage.names(f"{top}/{p}", {Kind.FILE})]


def test_what_is_stored_is_read_and_what_nobody_needs_goes(storage):
    for name, chunks in IMAGES.items():
        back_up(storage, name, chunks)
    assert restored(storage) == expected("kept", "gone")
    storage.remove("web/gone.map")
    assert prune(storage).freed_bytes > 0
    assert restored(storage) == expected("kept")
    repository = find_in(storage)
    totals = total_usage(repository, lambda: maps_in(storage), on_step)
    assert (totals.mapped_chunks, totals.chunks) == (3, 3)
    usage = exclusive_usage(repository, lambda: maps_in(storage), {"web/kept.map": 0}, on_step)
    assert usage.own_bytes == (totals.chunk_stored_bytes,)


def test_a_lost_pack_is_found_and_repaired(storage):
    for name, chunks in IMAGES.items():
        back_up(storage, name, chunks)
    (_, pack) = sorted(packs_in(storage), key=lambda name: storage.status(name).size_bytes)
    storage.remove(pack)
    repository = find_in(storage)
    assert reindex_packs(repository, on_step) == (0, 0)
    with closing(CheckSession(repository)) as session:
        check: Check = session.checking
        for file in maps_in(storage):
            assert need_map(repository, file.name, check, on_step).missing == 0
        check.look_at_packs(on_step)
        for run in check.runs(on_step):
            check.check(run)
        assert check.count_bad() > 0
        dropped, left = drop_bad_entries(repository, check)
    assert (dropped, left) == (check.count_bad(), 0)
    assert note_known_damage(repository, lambda: maps_in(storage), on_step) > 0
    for name, chunks in IMAGES.items():
        back_up(storage, f"{name}-again", chunks)
    assert note_known_damage(repository, lambda: maps_in(storage), on_step) == 0
    assert len(restored(storage)) == 4


def each_failure(work, is_done):
    """Give a storage after each of the calls of some work has failed, each made anew."""
    for failing in count():
        inner, calls = MemoryStorage(), count()
        inner.make_directory("web")
        # The pack of the first one has a chunk of the other, so it is repacked.
        back_up(inner, "gone", IMAGES["gone"])
        back_up(inner, "kept", IMAGES["kept"])

        def fail(verb, calls=calls, failing=failing):
            if next(calls) == failing:
                raise StorageError(f"{verb} failed")

        storage = FailingStorage(inner, **{"after" if is_done else "before": fail})
        with suppress(StorageError, LockHeldError):
            work(storage)
        yield inner
        if next(calls) <= failing:
            assert failing > 10, "it did not fail where something is done"
            return


def work_backup(storage):
    back_up(storage, "new", [8, 9, 1])


def work_prune(storage):
    storage.remove("web/gone.map")
    prune(storage)


@pytest.mark.parametrize("is_done", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize("work", [work_backup, work_prune])
def test_each_call_may_fail(work, is_done):
    for storage in each_failure(work, is_done):
        found = restored(storage)
        assert found["kept"] == expected("kept")["kept"]
        # Its maker is dead by now, and so are its leases.
        storage.now_s += 2 * 3600
        for file in storage.files.values():
            file.is_locked = False
        prune(storage)
        assert restored(storage) == found
        back_up(storage, "next", IMAGES["gone"])
        assert restored(storage)["next"] == expected("gone")["gone"]
