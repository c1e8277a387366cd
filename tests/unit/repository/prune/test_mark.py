"""repository/prune/mark.py: which chunks of which packs are needed, to the byte."""

from contextlib import closing

import pytest

from fakes.memory_repository import (
    IDS,
    ids,
    make_memory_repository,
    on_step,
    places_in,
    store_chunks,
    write_map,
)
from virtbackup_async.errors import CorruptError, ForeignRepositoryError
from virtbackup_async.repository.check.repair import note_known_damage
from virtbackup_async.repository.index.segments import open_index
from virtbackup_async.repository.prune import mark
from virtbackup_async.repository.prune.mark import Marks, Need, mark_all
from virtbackup_async.repository.storage.layout import MapFile, list_segments


@pytest.fixture
def repository():
    return make_memory_repository()


def store_twice(repository, first, second):
    """Store the same chunks in two packs: the first segment is out of the way for a moment."""
    one = store_chunks(repository, *first)
    (name,) = list_segments(repository.storage)
    data = repository.storage.read(name, 1 << 20)
    repository.storage.remove(name)
    two = store_chunks(repository, *second)
    repository.storage.put_new(name, data)
    return one, two


def test_the_needed_chunks_of_each_pack_are_counted(repository):
    one, two = store_chunks(repository, 1, 2, 3), store_chunks(repository, 4, 5)
    store_chunks(repository, 6)
    with closing(open_index(repository)) as index:
        marks = Marks(index)
        assert marks.mark(ids(1, 9, 3, 4, 8)) == [1, 4]
        assert marks.needed() == {
            one[1].pack: Need(2, one[1].length + one[3].length),
            two[4].pack: Need(1, two[4].length),
        }


def test_the_needed_chunks_of_some_packs_come_in_their_order(repository):
    one, two = store_chunks(repository, 1, 2, 3), store_chunks(repository, 4)
    with closing(open_index(repository)) as index:
        marks = Marks(index)
        marks.mark(ids(3, 1, 4))
        assert [*marks.places(frozenset({one[1].pack}))] == sorted(
            [(IDS[1], one[1]), (IDS[3], one[3])], key=lambda place: place[1]
        )
        assert [*marks.places(frozenset({two[4].pack}))] == [(IDS[4], two[4])]
        assert [*marks.places(frozenset())] == []


def test_a_chunk_is_needed_once_and_best_outside_of_the_packs_that_go(repository):
    one, two = store_twice(repository, [1, 2], [1, 3])
    for going, kept in ((one[1].pack, two), (two[1].pack, one)):
        with closing(open_index(repository)) as index:
            marks = Marks(index, frozenset({going}))
            marks.mark(ids(1))
            assert marks.needed() == {kept[1].pack: Need(1, kept[1].length)}


def test_a_needed_chunk_that_other_packs_have_too_is_given_where_it_is_marked(repository):
    one, two = store_twice(repository, [1, 2, 4], [1, 3])
    with closing(open_index(repository)) as index:
        marks = Marks(index, frozenset({one[1].pack}))
        marks.mark(ids(1, 2, 3))
        # 2 is in that pack alone, 3 in the other alone, and nobody needs 4.
        assert [*marks.places_beside(frozenset({one[1].pack}))] == [(IDS[1], two[1])]
        assert [*marks.places_beside(frozenset({two[1].pack}))] == []
        assert [*marks.places_beside(frozenset())] == []


def marked(repository, *names):
    """The ids that are needed after maps were read, and the steps."""
    steps = []
    with closing(open_index(repository)) as index:
        marks = Marks(index)
        mark_all(names, repository, marks, lambda: steps.append(1))
        packs = frozenset(location.pack for _, location in places_in(repository))
        return {id_ for id_, _ in marks.places(packs)}, len(steps)


@pytest.mark.parametrize("ids_at_once", [1, 2, 100])
def test_what_maps_need_is_marked(repository, monkeypatch, ids_at_once):
    monkeypatch.setattr(mark, "IDS_AT_ONCE", ids_at_once)
    store_chunks(repository, *range(1, 8))
    write_map(repository, "web/a.map", [1, 2, 0, 3])
    write_map(repository, "web/b.map", [1, 4, 0, 3])
    write_map(repository, "web/c.map", [5, 2])
    found = marked(repository, "web/a.map", "web/b.map", "web/removed.map", "web/c.map")
    assert found == ({IDS[n] for n in (1, 2, 3, 4, 5)}, 3)


@pytest.mark.parametrize("ids_at_once", [1, 3, 100])
def test_a_missing_chunk_is_told_of_its_own_map(repository, monkeypatch, ids_at_once):
    monkeypatch.setattr(mark, "IDS_AT_ONCE", ids_at_once)
    store_chunks(repository, 1, 2, 3)
    write_map(repository, "web/a.map", [1, 2])
    write_map(repository, "web/b.map", [3, 8, 9, 1])
    write_map(repository, "web/c.map", [2])
    with pytest.raises(CorruptError, match=r"^2 chunks of memory:web/b\.map are missing"):
        marked(repository, "web/a.map", "web/b.map", "web/c.map")


def damage(repository, name):
    """Damage the end of a map; its entries can be read."""
    repository.storage.files[name].data[-1] ^= 1


def test_known_damage_is_counted_for_each_map(repository):
    store_chunks(repository, 1, 2, 3)
    names = ["web/a.map", "web/b.map", "web/c.map"]
    write_map(repository, "web/a.map", [1])
    write_map(repository, "web/b.map", [2, 8])
    write_map(repository, "web/c.map", [9, 3])
    damage(repository, "web/b.map")
    with pytest.raises(CorruptError):
        marked(repository, *names)
    maps = [MapFile(name, name) for name in names]
    assert note_known_damage(repository, lambda: maps, on_step) == 2
    assert marked(repository, *names)[0] == {IDS[1], IDS[2], IDS[3]}
    # What is lost after that is not known.
    write_map(repository, "web/d.map", [7])
    with pytest.raises(CorruptError, match=r"^1 chunks of memory:web/d\.map are missing"):
        marked(repository, *names, "web/d.map")


def test_a_map_that_is_damaged_later_is_refused_with_a_hint(repository):
    store_chunks(repository, 1)
    write_map(repository, "web/a.map", [1])
    damage(repository, "web/a.map")
    with pytest.raises(CorruptError) as raised:
        marked(repository, "web/a.map")
    assert raised.value.hint == "Run 'virtbackup repair'."


def test_a_map_of_another_repository_is_refused(repository):
    store_chunks(repository, 1)
    other = make_memory_repository()
    write_map(other, "web/a.map", [1])
    repository.storage.put_new("web/a.map", other.storage.read("web/a.map", 1 << 20))
    with pytest.raises(ForeignRepositoryError):
        marked(repository, "web/a.map")
