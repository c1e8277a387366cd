"""repository/prune/repack.py: good copies, durable before the index names them."""

from contextlib import closing

import pytest

from fakes.failing_storage import FailingStorage
from fakes.memory_repository import IDS, make_memory_repository, places_in, store_chunks
from fakes.small_repository import content, ids_of
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.index.segments import open_index
from virtbackup_async.repository.prune import repack
from virtbackup_async.repository.prune.repack import Repack
from virtbackup_async.repository.storage.layout import list_packs, list_segments, pack_file
from virtbackup_async.repository.storage.repository_file import make_in

TOKEN = "f" * 24
NUMBERS = range(1, 6)
CHUNKS = {IDS[n]: content([n]) for n in NUMBERS}


@pytest.fixture
def repository():
    return make_memory_repository()


def indexed(repository):
    """All places that the index has, by segment."""
    with closing(open_index(repository)) as index:
        return {
            segment.name: [
                (id_, location) for id_ in ids_of(segment) for _, location in segment.find(id_)
            ]
            for segment in index.segments
        }


def test_copies_are_whole_and_in_the_index(repository, monkeypatch):
    monkeypatch.setattr(repack, "CHUNKS_A_SEGMENT", 2)
    store_chunks(repository, *NUMBERS)
    before = indexed(repository)
    wanted = places_in(repository)
    with closing(Repack(repository, TOKEN)) as rewriting:
        rewriting.copy(wanted)
        assert rewriting.copied_bytes == sum(location.length for _, location in wanted)
        assert rewriting.staying == frozenset()
    new = {name: found for name, found in indexed(repository).items() if name not in before}
    assert sorted(map(len, new.values())) == [1, 2, 2]
    assert all(TOKEN in name for name in new)
    copies = dict(place for found in new.values() for place in found)
    assert copies.keys() == CHUNKS.keys()
    for id_, location in copies.items():
        assert location.pack.hex().startswith(TOKEN)
        with closing(repository.storage.open(pack_file(location.pack))) as file:
            data = file.read(location.length, location.offset)
        assert pack_format.decode_blob(data, id_) == CHUNKS[id_]


def test_nothing_is_copied_of_nothing(repository):
    with closing(Repack(repository, TOKEN)) as rewriting:
        rewriting.copy([])
        assert rewriting.copied_bytes == 0
    assert list(list_packs(repository.storage)) == list_segments(repository.storage) == []


def test_each_pack_of_a_damaged_chunk_stays(repository):
    first, second = IDS[1], IDS[2]
    store_chunks(repository, 1, 2)
    (segment,) = list_segments(repository.storage)
    data = repository.storage.read(segment, 1 << 20)
    repository.storage.remove(segment)
    store_chunks(repository, 1)
    repository.storage.put_new(segment, data)
    bad = next(location for id_, location in places_in(repository) if id_ == first)
    blob = repository.storage.files[pack_file(bad.pack)].data
    blob[bad.offset + bad.length - 1] ^= 1
    good = next(location for id_, location in places_in(repository) if id_ == second)
    with closing(Repack(repository, TOKEN)) as rewriting:
        rewriting.copy([(first, bad), (second, good)])
        assert rewriting.staying == set(list_packs(repository.storage)) - {
            pack for pack in list_packs(repository.storage) if pack.hex().startswith(TOKEN)
        }
        assert len(rewriting.staying) == 2
        assert rewriting.copied_bytes == good.length


def test_a_pack_that_the_index_does_not_name_for_the_chunk_stays_too(repository):
    first = IDS[1]
    store_chunks(repository, 1)
    ((_, location),) = places_in(repository)
    elsewhere = location._replace(pack=bytes(16))
    with closing(Repack(repository, TOKEN)) as rewriting:
        rewriting.copy([(first, elsewhere)])
        assert rewriting.staying == {location.pack, bytes(16)}


def test_copies_are_durable_before_the_index_names_them(repository):
    store_chunks(repository, *NUMBERS)
    wanted, verbs = places_in(repository), []
    watched = FailingStorage(repository.storage, before=verbs.append)
    with closing(Repack(make_in(watched), TOKEN)) as rewriting:
        verbs.clear()
        rewriting.copy(wanted)
    assert verbs.index("finish") < verbs.index("create_hidden") < verbs.index("publish")


def test_copies_that_the_index_does_not_name_are_removed(repository):
    store_chunks(repository, *NUMBERS)
    packs, wanted = list(list_packs(repository.storage)), places_in(repository)

    def fail(verb):
        if verb == "create_hidden":
            raise RuntimeError

    broken = make_in(FailingStorage(repository.storage, before=fail))
    with pytest.raises(RuntimeError), closing(Repack(broken, TOKEN)) as rewriting:
        rewriting.copy(wanted)
    assert list(list_packs(repository.storage)) == packs


def test_the_packs_that_were_read_are_closed(repository):
    store_chunks(repository, *NUMBERS)
    wanted, opened = places_in(repository), []
    real = repository.storage.open

    def open_counted(name):
        file = real(name)
        file.close = lambda: opened.remove(name)
        opened.append(name)
        return file

    repository.storage.open = open_counted
    with closing(Repack(repository, TOKEN)) as rewriting:
        rewriting.copy(wanted)
        assert opened
    assert opened == []
