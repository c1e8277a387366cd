"""repository/check/check.py: which chunks are read, which of them are bad, and which are lost."""

import random
from contextlib import closing

import numpy as np
import pytest

from fakes.memory_repository import IDS, ids, make_memory_repository, on_step, store_chunks
from virtbackup_async.errors import CorruptError
from virtbackup_async.repository.check import check as checks
from virtbackup_async.repository.check.check import Check, PackDamage, is_readable
from virtbackup_async.repository.data import read_runs
from virtbackup_async.repository.data.chunk_writer import ChunkWriters
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.format.chunks import CHUNK_BYTES, chunk_id
from virtbackup_async.repository.index.id_batches import ids_of
from virtbackup_async.repository.index.segment_writer import (
    content_of,
    nothing_follows,
    write_segment,
)
from virtbackup_async.repository.index.segments import open_index
from virtbackup_async.repository.storage.layout import (
    list_segments,
    new_token,
    pack_file,
    segment_file,
)

UNKNOWN = bytes(32)


@pytest.fixture
def repository():
    return make_memory_repository()


def store_again(repository, *numbers):
    """Store chunks in a pack of their own, though the index has them: it is away for a moment."""
    names = [*list_segments(repository.storage)]
    aside = {name: repository.storage.read(name, 1 << 20) for name in names}
    for name in names:
        repository.storage.remove(name)
    found = store_chunks(repository, *numbers)
    for name, data in aside.items():
        repository.storage.put_new(name, data)
    return found


def flip(repository, location, at=-1):
    """Damage a chunk: its last byte, or another one."""
    content = repository.storage.files[pack_file(location.pack)].data
    content[location.offset + (at if at >= 0 else location.length - 1)] ^= 1


class Checked:
    """A check that is done."""

    def __init__(self, repository, wanted=None, pending=frozenset()):
        with closing(open_index(repository)) as index:
            self.check = Check(repository, index, pending)
            if wanted is None:
                self.check.need_all()
                self.unknown = 0
            else:
                self.unknown = self.check.need(wanted)
            self.bytes = self.check.look_at_packs(on_step)
            self.runs = [*self.check.runs(on_step)]
            self.read_bytes = sum(map(self.check.check, self.runs))
            self.lost = self.check.lost(ids(*range(1, 10)))
            self.bad_packs = {segment.packs for segment, _ in self.check.bad_segments()}

    @property
    def counts(self):
        return self.check.count_needed(), self.check.count_bad()

    @property
    def errors(self):
        return [self.check.damage[pack].error for pack in sorted(self.check.damage)]


def test_only_the_wanted_chunks_are_read_and_the_unknown_ones_are_counted(repository):
    places = store_chunks(repository, 1, 2, 3)
    wanted = np.concatenate([ids(1, 3, 3), ids_of(UNKNOWN)])
    done = Checked(repository, wanted)
    assert done.unknown == 1
    assert done.counts == (2, 0)
    assert done.bytes == done.read_bytes == places[1].length + places[3].length
    assert not done.check.has_losses
    assert done.bad_packs == set()
    assert done.check.damage == {}


def test_each_copy_of_a_chunk_is_read_and_it_is_lost_only_if_all_are_bad(repository):
    one, two = store_chunks(repository, 1, 2), store_again(repository, 1, 2)
    flip(repository, one[1])
    done = Checked(repository, ids(1, 2))
    assert done.counts == (4, 1)
    assert done.lost == [*range(2, 9)], "those from 3 to 9 are not there at all"
    assert done.check.has_losses
    flip(repository, two[1])
    done = Checked(repository, ids(1, 2))
    assert done.counts == (4, 2)
    assert done.lost == [0, *range(2, 9)]


def test_a_copy_that_was_not_asked_for_saves_a_chunk(repository):
    """As after a prune, whose packs do not count while others have the chunk."""
    one, two = store_chunks(repository, 1), store_again(repository, 1)
    flip(repository, one[1])
    pending = frozenset({two[1].pack})
    done = Checked(repository, ids(1), pending)
    assert done.counts == (1, 1)
    assert 0 not in done.lost
    flip(repository, two[1])
    done = Checked(repository, ids(1), pending)
    assert (done.counts, done.lost[0]) == ((1, 1), 0)


@pytest.mark.parametrize("bad", [0, 1])
def test_two_copies_in_one_segment_count_as_two(repository, bad):
    """As after segments were merged."""
    copies = [store_chunks(repository, 1)[1], store_again(repository, 1)[1]]
    for name in [*list_segments(repository.storage)]:
        repository.storage.remove(name)
    content = content_of([(IDS[1], location) for location in copies])
    write_segment(repository, segment_file(new_token(), 0), content, nothing_follows)
    flip(repository, copies[bad])
    done = Checked(repository)
    assert done.counts == (2, 1)
    assert 0 not in done.lost
    flip(repository, copies[not bad])
    assert 0 in Checked(repository).lost


def test_damage_is_told_once_for_each_pack_with_the_number_of_its_chunks(repository):
    one, two = store_chunks(repository, 1, 2, 3), store_chunks(repository, 4, 5)
    for location in (one[1], one[3], two[4]):
        flip(repository, location)
    done = Checked(repository)
    assert done.counts == (5, 3)
    told = {damage.chunks: damage.error for damage in done.check.damage.values()}
    for chunks, location in ((2, one[1]), (1, two[4])):
        assert repository.where_is(location.pack) in told[chunks]
    assert done.bad_packs == {(one[1].pack,), (two[4].pack,)}


def test_a_pack_that_is_missing_costs_all_its_chunks(repository):
    one, two = store_chunks(repository, 1, 2), store_chunks(repository, 3)
    repository.storage.remove(pack_file(one[1].pack))
    done = Checked(repository)
    assert done.errors == [f"pack is missing: {repository.where_is(one[1].pack)}"]
    assert (done.counts, done.read_bytes) == ((3, 2), two[3].length)
    assert done.bytes == done.read_bytes, "what cannot be read is no progress to wait for"
    assert done.lost == [0, 1, *range(3, 9)]
    assert done.check.damaged_heads == []


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_pack_that_is_cut_off_costs_the_chunks_behind(repository, cut):
    places = sorted(store_chunks(repository, 1, 2).items(), key=lambda place: place[1].offset)
    (_, first), (second, last) = places
    data = repository.storage.files[pack_file(first.pack)].data
    del data[last.offset + last.length - cut :]
    done = Checked(repository)
    assert done.counts == (2, min(cut, 1))
    assert (second - 1 in done.lost) == bool(cut)
    assert len(done.errors) == bool(cut)
    assert all("it is cut off at " in error for error in done.errors)


def test_a_damaged_head_costs_no_chunk(repository):
    places = store_chunks(repository, 1, 2)
    repository.storage.files[pack_file(places[1].pack)].data[3] ^= 1
    done = Checked(repository)
    assert done.counts == (2, 0)
    assert done.check.damaged_heads == [places[1].pack]
    (damage,) = done.check.damage.values()
    where = repository.where_is(places[1].pack)
    assert damage == PackDamage(f"pack is damaged: {where}: its head is damaged", 0)


def test_a_chunk_that_cannot_be_compressed_is_as_long_as_one_can_be(repository):
    data = random.Random(1).randbytes(CHUNK_BYTES)
    with closing(ChunkWriters().open(repository, 1)) as writer:
        writer.add({chunk_id(data): memoryview(data)})
        writer.publish()
    done = Checked(repository)
    assert done.read_bytes == pack_format.MAX_BLOB_BYTES
    assert done.counts == (1, 0)
    with closing(open_index(repository)) as index:
        (location,) = index.places(chunk_id(data))
    assert is_readable(repository, chunk_id(data), location)
    longer = location._replace(length=location.length + 1)
    assert not is_readable(repository, chunk_id(data), longer)


def test_packs_are_read_one_after_another_however_few_places_fit_into_memory(
    repository, monkeypatch
):
    places = {}
    for numbers in ((1, 2, 3), (4,), (5, 6), (7, 8, 9)):
        places.update(store_chunks(repository, *numbers))
    whole = Checked(repository)
    for at_once in (1, 2, 3, 4, 100):
        monkeypatch.setattr(checks, "PLACES_A_BATCH", at_once)
        done = Checked(repository)
        found = [(run.pack, run.places.tobytes()) for run in done.runs]
        assert found == [(run.pack, run.places.tobytes()) for run in whole.runs]
    assert whole.read_bytes == sum(location.length for location in places.values())
    packs = [run.pack for run in whole.runs]
    assert packs == sorted(packs)


@pytest.mark.parametrize(("at_once", "times"), [(1, 5), (2, 3), (4, 2), (5, 1), (100, 1)])
def test_the_index_is_read_once_for_as_many_packs_as_fit_into_memory(
    repository, monkeypatch, at_once, times
):
    monkeypatch.setattr(checks, "PLACES_A_BATCH", at_once)
    places = [(IDS[n], store_chunks(repository, n)[n]) for n in range(1, 6)]
    for name in [*list_segments(repository.storage)]:
        repository.storage.remove(name)
    write_segment(repository, segment_file(new_token(), 0), content_of(places), nothing_follows)
    steps = []
    with closing(open_index(repository)) as index:
        check = Check(repository, index, frozenset())
        check.need_all()
        check.look_at_packs(on_step)
        assert sum(len(run.places) for run in check.runs(lambda: steps.append(1))) == 5
        assert len(steps) == times


def test_a_check_can_be_ended_at_each_part_of_the_index(repository):
    store_chunks(repository, 1)

    class EndedError(Exception):
        pass

    def end():
        raise EndedError

    with closing(open_index(repository)) as index:
        check = Check(repository, index, frozenset())
        check.need_all()
        with pytest.raises(EndedError):
            check.look_at_packs(end)
        check.look_at_packs(on_step)
        with pytest.raises(EndedError):
            [*check.runs(end)]


def test_nothing_is_read_of_nothing(repository):
    store_chunks(repository, 1)
    done = Checked(repository, ids_of(b""))
    assert (done.bytes, done.runs, done.counts) == (0, [], (0, 0))


def test_a_number_of_a_pack_that_a_segment_has_not_is_damage(repository):
    store_chunks(repository, 1)
    with closing(open_index(repository)) as index:
        check = Check(repository, index, frozenset())
        check.need_all()
        index.segments[0].packs = ()
        with pytest.raises(CorruptError, match="names no such pack"):
            check.look_at_packs(on_step)


def test_a_pack_is_opened_once_for_all_that_is_read_of_it(monkeypatch):
    monkeypatch.setattr(read_runs, "RUN_BYTES", 1)
    repository = make_memory_repository()
    storage = repository.storage
    storage.reads_at_once = 7
    store_chunks(repository, *range(1, 10))
    opened = []
    open_ = storage.open
    monkeypatch.setattr(storage, "open", lambda name: opened.append(name) or open_(name))
    with closing(open_index(repository)) as index:
        check = Check(repository, index, frozenset())
        check.need_all()
        check.look_at_packs(on_step)
        opened.clear()
        runs = [*check.runs(on_step)]
        assert len(runs) == 9
        assert sum(map(check.check, runs)) > 0
        check.close()
    assert len(opened) == 1
    assert check.runs_at_once >= 7
