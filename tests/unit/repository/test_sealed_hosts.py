"""Sealed repositories: a host adds, deduplicates, checks and prunes, and reads no old byte."""

import random
import shutil
from contextlib import closing
from functools import partial
from itertools import permutations

import pytest
from msgspec.structs import replace

from fakes.encrypted_place import EncryptedPlace
from fakes.sealed_place import SealedPlace
from fakes.small_repository import content
from virtbackup_async.errors import ConfigError, CorruptError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.stream import open_stream
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.packager import Location
from virtbackup_async.model.storage_location import LOCAL, StorageLocation
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.packagers.repository.writer import open_writer
from virtbackup_async.repository import (
    CheckSession,
    check_without_key,
    drop_bad_entries,
    drop_key,
    find_repository,
    hold_key,
    key_of_file,
    list_key_slots,
    make_repository,
    open_key_changes,
    prune_repository,
    reindex_packs,
    repair_repository_file,
)
from virtbackup_async.repository.format.chunks import CHUNK_BYTES
from virtbackup_async.repository.index.segments import open_index
from virtbackup_async.repository.keys.slots import Cost
from virtbackup_async.repository.storage.key import Key
from virtbackup_async.repository.storage.layout import DIRECTORY, REPOSITORY_FILE, list_packs
from virtbackup_async.repository.storage.public_file import write_public_file
from virtbackup_async.repository.storage.run_keys import run_key_names

FIRST = [1, 2, 3, 0, 4]
SECOND = [1, 2, 5, 0, 4]


def on_step():
    """Go on."""


@pytest.fixture
async def place(tmp_path):
    made = SealedPlace(tmp_path / "one")
    made.make()
    await made.back_up("web", "1", FIRST)
    await made.back_up("web", "2", SECOND)
    return made


def prune(place):
    repository = find_repository(place.location)
    return prune_repository(repository, partial(list_maps, repository.storage), on_step)


def runs(place):
    return run_key_names(find_repository(place.location).storage)


def check_all(place):
    """Check everything that the index names; return what is wrong."""
    with closing(CheckSession(find_repository(place.location))) as session:
        session.checking.need_all()
        session.checking.look_at_packs(on_step)
        for run in session.checking.runs(on_step):
            session.checking.check(run)
        return [damage.error for damage in session.checking.damage.values()]


async def test_a_host_writes_and_only_the_recovery_key_reads(place):
    with pytest.raises(ConfigError, match="only the recovery key opens it") as error:
        await place.restored("web", "1", place.location)
    assert error.value.exit_code == 2
    assert "--recovery" in error.value.hint
    assert not (place.directory / "restored").exists()
    assert await place.restored("web", "1") == content(FIRST)
    assert await place.restored("web", "2") == content(SECOND)


async def test_a_host_finds_equal_chunks_without_reading_them(place):
    before = sum(map(len, place.packs()))
    await place.back_up("db", "1", [4, 3, 2, 1])
    assert sum(map(len, place.packs())) == before
    await place.back_up("db", "2", [4, 3, 2, 9])
    assert await place.restored("db", "2") == content([4, 3, 2, 9])


class Image:
    """An ``ImageReader`` of some parts of an image."""

    def __init__(self, data, parts):
        self.size_bytes = len(data)
        self.data_extents = tuple(parts)
        self._data = data

    def read(self, wanted):
        for offset, target in wanted:
            target[:] = self._data[offset : offset + len(target)]


async def test_a_host_goes_on_from_the_map_of_a_backup_that_it_cannot_read(place):
    """It reads what changed and audits the rest, and no chunk of the repository."""
    data = content([1, 50, 3, 0, 4])
    package = Location(Packager("repository", {}), place.location, "web", "3")
    async with open_writer(package, CpuShares(1)) as writer:
        async with writer.open_base("1_vda.raw") as base:
            parts = await base.choose([Extent(CHUNK_BYTES + 7, 9)])
            sample = await base.sample(100, [Extent(0, len(data))])
            assert sample
            other = content([1, 50, 9, 0, 4])
            for there, is_good in ((data, True), (other, False)):
                async with open_stream(Image(there, sample), BufferPool(), "audit") as stream:
                    assert await base.is_as_it_was(sample, stream) is is_good
            async with open_stream(Image(data, parts), BufferPool(), "3") as stream:
                await writer.add_changes("3_vda.raw", stream, base, lambda _: None)
        await writer.finish()
    assert await place.restored("web", "3") == data


async def test_a_host_checks_all_and_finds_each_changed_byte(place):
    assert check_all(place) == []
    pack = place.files(f"{DIRECTORY}/packs")[0]
    data = bytearray(pack.read_bytes())
    for at in random.Random(3).sample(range(64, len(data) - 32), 40):
        data[at] ^= 1
        pack.write_bytes(data)
        assert check_all(place), at
        data[at] ^= 1
    pack.write_bytes(data)
    assert check_all(place) == []


async def test_a_host_prunes_and_repacks_what_it_cannot_read(place):
    for number, chunks in enumerate(([10, 11, 12, 13, 14, 15, 16], [11, 20, 21])):
        await place.back_up("db", str(number), chunks)
    storage = find_repository(place.location).storage
    before = runs(place)
    storage.remove("db/0_vda.raw.map")
    pruned = prune(place)
    assert pruned.rewritten_bytes
    assert pruned.freed_bytes
    # The key of the run that chunk 11 is from moved along; that of no pack is gone.
    packs = {pack[:12].hex() for pack in list_packs(storage)}
    assert {name.split("-")[0] for name in runs(place)} == packs
    assert len({name.split("-")[1] for name in runs(place)}) == len(before) // 2
    assert check_all(place) == []
    assert await place.restored("db", "1") == content([11, 20, 21])
    for name in ("web/1", "web/2", "db/1"):
        storage.remove(f"{name}_vda.raw.map")
    prune(place)
    assert runs(place) == []


async def test_a_key_that_a_run_left_twice_is_enough_once(place):
    for copy in ("0", "1"):
        for path in run_files(place, copy):
            path.rename(path.with_suffix(".away"))
        assert check_all(place) == []
        assert await place.restored("web", "2") == content(SECOND)
        for path in place.target.rglob("*.away"):
            path.rename(path.with_suffix(""))


def run_files(place, ending=""):
    """The files of the keys of runs, whose name has an ending."""
    storage = find_repository(place.location).storage
    return [
        place.target / storage._sealed(f"{DIRECTORY}/run-keys/{name}")
        for name in run_key_names(storage)
        if name.endswith(ending)
    ]


async def test_a_key_of_a_run_in_place_of_another_is_noticed(place):
    await place.back_up("web", "3", [60, 61])
    files = run_files(place)
    assert len(files) == 6
    for one, other in permutations(files, 2):
        kept = one.read_bytes()
        one.write_bytes(other.read_bytes())
        fresh(place)
        # The other copy of it is used.
        assert check_all(place) == []
        assert await place.restored("web", "3") == content([60, 61])
        one.write_bytes(kept)
    kept = {path: path.read_bytes() for path in files}
    for path, other in zip(files, [*files[2:], *files[:2]], strict=True):
        path.write_bytes(kept[other])
    fresh(place)
    assert check_all(place)
    for name in "123":
        with pytest.raises(CorruptError):
            await place.restored("web", name)


async def test_damage_is_found_without_any_key(place):
    alone = StorageLocation.of(place.target)
    assert [pack.error for pack in check_without_key(alone, on_step)] == [None, None]
    pack = place.files(f"{DIRECTORY}/packs")[0]
    data = bytearray(pack.read_bytes())
    data[200] ^= 1
    pack.write_bytes(data)
    assert [pack.error for pack in check_without_key(alone, on_step)].count(None) == 1


async def test_lost_keys_of_runs_are_noticed_and_their_chunks_stored_again(place):
    for path in run_files(place):
        path.unlink()
    fresh(place)
    assert check_all(place)
    with pytest.raises(CorruptError, match="run key"):
        await place.restored("web", "1")
    with pytest.raises(CorruptError, match="key of its run is missing"):
        prune(place)
    await place.back_up("web", "3", FIRST)
    assert await place.restored("web", "3") == content(FIRST)
    assert await place.restored("web", "1") == content(FIRST)
    with closing(CheckSession(find_repository(place.location))) as session:
        session.checking.need_all()
        session.checking.look_at_packs(on_step)
        for run in session.checking.runs(on_step):
            session.checking.check(run)
        drop_bad_entries(find_repository(place.location), session.checking)
    assert check_all(place) == []


def fresh(place):
    """Let the next one open the repository anew, as another process does."""
    path = place.target / REPOSITORY_FILE
    path.write_bytes(path.read_bytes())
    shutil.copy(path, path.with_name("new"))
    path.with_name("new").rename(path)


async def test_the_index_is_made_again_without_reading_chunks(place):
    for path in place.files(f"{DIRECTORY}/index"):
        path.unlink()
    assert reindex_packs(find_repository(place.location), on_step)[0] == 5
    assert await place.restored("web", "2") == content(SECOND)


async def test_a_lost_repository_file_is_written_again_for_the_key_of_the_configuration(place):
    before = find_repository(place.location)
    path = place.target / REPOSITORY_FILE
    data = path.read_bytes()
    path.unlink()
    alone = replace(place.location, sealed_for=None)
    with pytest.raises(ConfigError, match="is sealed"):
        repair_repository_file(alone)
    assert repair_repository_file(place.location) == before
    assert path.read_bytes() == data
    path.unlink()
    with place.recovered() as recovered:
        assert repair_repository_file(replace(recovered, sealed_for=None)).sealing.can_read
    assert path.read_bytes() == data


async def test_an_unsealed_repository_is_never_made_a_sealed_one(tmp_path):
    unsealed = EncryptedPlace(tmp_path / "unsealed")
    unsealed.make()
    await unsealed.back_up("web", "1", FIRST)
    public = SealedPlace(tmp_path / "sealed").location.sealed_for
    location = replace(unsealed.location, sealed_for=public)
    with pytest.raises(ConfigError, match="not sealed"):
        make_repository(location)
    (unsealed.target / REPOSITORY_FILE).unlink()
    with pytest.raises(ConfigError, match="was not sealed"):
        repair_repository_file(location)


# Its keys.


async def test_a_passphrase_opens_names_and_no_disk(place):
    location = replace(place.location, sealed_for=None)
    changes = open_key_changes(location, key_of_file(place.key_file))
    changes.add(Key.of_passphrase("long enough"), "admin", Cost(1, 1, 64))
    name = hold_key(Key.of_passphrase("long enough"))
    found = find_repository(replace(location, held_key=name))
    assert [file.name for file in list_maps(found.storage)] == [
        "web/1_vda.raw.map", "web/2_vda.raw.map",
    ]  # fmt: skip
    assert not found.sealing.can_read
    drop_key(name)


async def test_the_one_recovery_key_stays(place):
    location = place.location
    slots = {slot.kind: slot.name for slot in list_key_slots(location).slots}
    assert set(slots) == {"key-file", "recovery"}
    changes = open_key_changes(location, key_of_file(place.key_file))
    with pytest.raises(ConfigError, match="one recovery key"):
        changes.add_recovery("paper")
    with pytest.raises(ConfigError, match="nothing but its recovery key"):
        changes.remove(slots["recovery"])


async def test_rotated_keys_seal_for_the_same_recovery_key(place):
    changes = open_key_changes(place.location, key_of_file(place.key_file))
    assert changes.rotate() == 2
    await place.back_up("web", "3", [7, 8, 1])
    assert await place.restored("web", "3") == content([7, 8, 1])
    assert await place.restored("web", "1") == content(FIRST)
    with pytest.raises(ConfigError, match="only the recovery key"):
        await place.restored("web", "3", place.location)


# Copies.


async def test_a_copy_from_a_sealed_repository_takes_the_recovery_key(place, tmp_path):
    copies = EncryptedPlace(tmp_path / "copies")
    copies.make()
    with pytest.raises(ConfigError, match="recovery key"):
        await copies.copied("web", "1", place.location)
    with place.recovered() as recovered:
        await copies.copied("web", "1", recovered)
    assert await copies.restored("web", "1") == content(FIRST)


async def test_a_copy_into_a_sealed_repository_converts(place, tmp_path):
    unsealed = EncryptedPlace(tmp_path / "unsealed")
    unsealed.make()
    await unsealed.back_up("db", "1", [30, 31])
    await place.copied("db", "1", unsealed.location)
    assert await place.restored("db", "1") == content([30, 31])


async def test_blobs_move_as_they_are_between_repositories_of_the_same_keys(place, tmp_path):
    twin = StorageLocation(
        LOCAL, str(tmp_path / "twin"), key_file=place.key_file, sealed_for=place.location.sealed_for
    )
    shutil.copytree(place.target, twin.path)
    await place.back_up("web", "3", [40, 41])
    other = SealedPlace.__new__(SealedPlace)
    other.__dict__.update(place.__dict__)
    other.location, other.target = twin, tmp_path / "twin"
    before = len(runs(place))
    await other.copied("web", "3", place.location)
    assert len(run_key_names(find_repository(twin).storage)) == before
    assert await other.restored("web", "3") == content([40, 41])
    with closing(open_index(find_repository(twin))) as index:
        assert sum(segment.shape.records for segment in index.segments) == 7


# The file of the public half.


@pytest.mark.parametrize("wrong", ["missing", "writable", "a link", "damaged", "empty", "a key"])
def test_a_public_key_that_others_could_change_is_refused(tmp_path, wrong):
    place = SealedPlace(tmp_path / "place")
    path = place.location.sealed_for
    if wrong == "missing":
        path.unlink()
    if wrong == "writable":
        path.chmod(0o664)
    if wrong == "a link":
        path.rename(tmp_path / "moved")
        path.symlink_to(tmp_path / "moved")
    if wrong == "damaged":
        text = path.read_text()
        path.write_text(text[:500] + ("A" if text[500] != "A" else "B") + text[501:])
    if wrong == "empty":
        path.write_text("# nothing\n")
    if wrong == "a key":
        path.write_text("virtbackup-key-1:AAAA\n")
    with pytest.raises(ConfigError) as error:
        make_repository(place.location)
    assert error.value.exit_code == 2
    assert place.files() == []
    assert not place.key_file.exists()


def test_a_public_key_is_not_written_over(tmp_path):
    place = SealedPlace(tmp_path / "place")
    before = place.location.sealed_for.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        write_public_file(place.location.sealed_for, bytes(1216))
    assert place.location.sealed_for.read_bytes() == before
