"""The prune where space is short: first whatever takes none, then the smallest, then more."""

import errno

import pytest

from fakes.failing_calls import failing
from fakes.repository_files import files_of
from fakes.small_repository import SmallRepository, content
from virtbackup_async.errors import StorageFullError
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.format.index_format import RECORD_BYTES
from virtbackup_async.repository.prune import prune as pruning
from virtbackup_async.repository.prune.mark import Need
from virtbackup_async.repository.prune.repack import fitting
from virtbackup_async.repository.storage.layout import list_packs
from virtbackup_async.repository.storage.local import RESERVE_FILES, LocalStorage
from virtbackup_async.repository.storage.repository_file import find_repository

MIB = 1 << 20
FULL = [errno.ENOSPC, errno.EDQUOT]


@pytest.fixture
def place(tmp_path):
    return SmallRepository(tmp_path / "target")


def reserves(place):
    return sorted(
        path.name for path in files_of(find_repository(place.location)).root.glob("reserve-*")
    )


def test_the_least_needed_packs_fit_first():
    copied = {b"a": Need(4, 3 * MIB), b"b": Need(1, MIB), b"c": Need(2, 2 * MIB)}
    assert fitting(copied, 100 * MIB, 9).keys() == {b"a", b"b", b"c"}
    assert fitting(copied, 4 * MIB, 9).keys() == {b"b", b"c"}
    assert fitting(copied, 100 * MIB, 1).keys() == {b"b"}
    assert fitting(copied, MIB, 9) == {}


def test_packs_fit_with_their_records_and_a_margin_to_the_byte():
    copied = {b"a": Need(3, MIB), b"b": Need(1000, 2 * MIB)}
    first = MIB + 3 * RECORD_BYTES + 256 * 1024
    both = first + 2 * MIB + 1000 * RECORD_BYTES
    for free_bytes, count in ((first - 1, 0), (first, 1), (both - 1, 1), (both, 2)):
        assert [*fitting(copied, free_bytes, 9)] == [b"a", b"b"][:count]


def test_of_equal_packs_the_same_ones_are_always_first():
    copied = {name: Need(1, MIB) for name in (b"c", b"a", b"b")}
    assert [*fitting(copied, 100 * MIB, 2)] == [b"a", b"b"]


async def make_dead_and_half_dead(place, monkeypatch):
    """A pack that is dead, and two of which a quarter and a half are needed."""
    monkeypatch.setattr(pack_format, "PACK_BYTES", 10 * MIB)
    await place.back_up("dead", content([1, 2]))
    await place.back_up("half", content([3, 4]))
    await place.back_up("quarter", content([5, 6, 7, 8]))
    await place.back_up("kept", content([3, 5]))
    for name in ("dead", "half", "quarter"):
        place.remove(name)


async def test_without_room_the_dead_packs_go_and_the_others_stay(place, monkeypatch):
    await make_dead_and_half_dead(place, monkeypatch)
    monkeypatch.setattr(LocalStorage, "free_bytes", lambda _: 0)
    pruned = place.prune()
    assert len(place.packs()) == 2
    assert pruned.rewritten_bytes == 0
    assert pruned.freed_bytes > 0
    assert pruned.unrewritten_bytes == pruned.stored_bytes > 0
    assert await place.restored("kept") == content([3, 5])
    monkeypatch.undo()
    pruned = place.prune()
    assert (len(place.packs()), pruned.unrewritten_bytes) == (1, 0)
    assert await place.restored("kept") == content([3, 5])


async def test_each_round_has_the_room_that_the_one_before_made(place, monkeypatch):
    await make_dead_and_half_dead(place, monkeypatch)
    rounds = []

    def first_little(copied, room_bytes, most_packs):
        rounds.append(len(copied))
        return fitting(copied, room_bytes, min(most_packs, 1))

    monkeypatch.setattr(pruning, "fitting", first_little)
    pruned = place.prune()
    # Two that are to be packed anew: the dead one goes first; then one; then the other one, which
    # is all that there is.
    assert rounds[:3] == [2, 2, 1]
    assert pruned.unrewritten_bytes == 0
    assert await place.restored("kept") == content([3, 5])


async def test_what_does_not_fit_beside_the_last_dead_pack_is_done_in_the_same_prune(
    place, monkeypatch
):
    """A note has room for two packs: four dead ones go, and one is left beside two half dead."""
    await make_dead_and_half_dead(place, monkeypatch)
    for number in range(11, 15):
        await place.back_up(f"dead{number}", content([number]))
        place.remove(f"dead{number}")
    written = pruning.write_pending_deletion

    def write_short(storage, note):
        if len(note.packs) > 2:
            raise StorageFullError("target is full")
        written(storage, note)

    monkeypatch.setattr(pruning, "write_pending_deletion", write_short)
    monkeypatch.setattr(
        LocalStorage, "free_bytes", lambda _: 0 if len(place.packs()) > 3 else 100 * MIB
    )
    pruned = place.prune()
    assert pruned.rewritten_bytes > 0
    assert (len(place.packs()), pruned.unrewritten_bytes) == (1, 0)
    assert await place.restored("kept") == content([3, 5])


@pytest.mark.parametrize("code", FULL, ids=errno.errorcode.get)
async def test_room_that_is_taken_by_others_meanwhile_is_done_without(place, monkeypatch, code):
    await make_dead_and_half_dead(place, monkeypatch)
    before = set(place.packs())

    def is_new_pack(path):
        return path.suffix == ".pack" and path not in before

    with failing("write", is_new_pack, code) as failed:
        pruned = place.prune()
    assert len(failed) >= 2, "it did not try with less"
    assert (pruned.rewritten_bytes, len(place.packs())) == (0, 2)
    assert pruned.unrewritten_bytes == pruned.stored_bytes
    assert await place.restored("kept") == content([3, 5])


@pytest.mark.parametrize("code", FULL, ids=errno.errorcode.get)
async def test_a_lease_and_a_note_find_room_in_the_reserve(place, monkeypatch, code):
    await make_dead_and_half_dead(place, monkeypatch)
    assert len(reserves(place)) == RESERVE_FILES
    root = files_of(find_repository(place.location)).root

    def is_full(path):
        return any(root.glob("reserve-*"))

    with failing("link", is_full, code) as failed:
        place.prune()
    assert failed
    assert len(place.packs()) == 1
    assert len(reserves(place)) == RESERVE_FILES


async def test_a_note_names_as_many_packs_as_it_has_room_for(place, monkeypatch):
    await make_dead_and_half_dead(place, monkeypatch)
    written = pruning.write_pending_deletion

    def write_short(storage, note):
        if len(note.packs) > 1:
            raise StorageFullError("target is full")
        written(storage, note)

    monkeypatch.setattr(pruning, "write_pending_deletion", write_short)
    place.prune()
    # The two that are half needed were repacked into one pack, or one by one, each into its own:
    # that depends on which copy of a chunk counts. Nothing else is left.
    assert len(place.packs()) in {1, 2}
    assert place.prune().freed_bytes == 0
    assert await place.restored("kept") == content([3, 5])


@pytest.mark.parametrize("room", [0, 1])
async def test_a_note_without_room_for_one_pack_is_the_end_and_with_room_for_one_is_not(
    place, monkeypatch, room
):
    for number in (1, 2):
        await place.back_up(f"dead{number}", content([number]))
        place.remove(f"dead{number}")
    written = pruning.write_pending_deletion

    def write_short(storage, note):
        if len(note.packs) > room:
            raise StorageFullError("target is full")
        written(storage, note)

    monkeypatch.setattr(pruning, "write_pending_deletion", write_short)
    if room:
        place.prune()
        assert place.packs() == []
    else:
        with pytest.raises(StorageFullError):
            place.prune()
        assert len(place.packs()) == 2


async def test_a_reserve_is_let_go_of_once_and_made_again(place):
    await place.back_up("a", content([1]))
    repository = find_repository(place.location)
    assert repository.storage.release_reserve()
    assert not repository.storage.release_reserve()
    with failing("fdatasync", lambda path: path.name.startswith("reserve"), errno.ENOSPC):
        repository.storage.keep_reserve()
    assert reserves(place) == []
    place.prune()
    assert len(reserves(place)) == RESERVE_FILES
    assert len(list(list_packs(repository.storage))) == 1
