"""repair: what can be mended is, what is lost is told, and the next backup heals what it can."""

import errno
import json
import shutil
import zlib
from functools import partial

import pytest
from blake3 import blake3

from fakes.failing_calls import failing
from fakes.repository_files import files_of
from fakes.shared_site import SharedSite, flip
from fakes.site import NOW
from fakes.small_repository import content
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.verify.repair import RepairRequest, run_repair
from virtbackup_async.errors import (
    CorruptError,
    ForeignRepositoryError,
    LockHeldError,
    NewerVersionError,
    StorageError,
)
from virtbackup_async.events import (
    DiskDamaged,
    RepositoryRepaired,
    VerifyDone,
    VerifyFailed,
)
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.packagers.registry import open_reader
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository.data.chunk_writer import ChunkWriters
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.format.chunks import CHUNK_BYTES, chunk_id
from virtbackup_async.repository.prune.prune import prune_repository
from virtbackup_async.repository.storage.leases import PRUNER, take_lease


class DamagedSite(SharedSite):
    async def repair(self, quick=False):
        self.events.clear()
        await run_repair(
            Runtime(self.configure(), self.events.append, now=lambda: NOW),
            RepairRequest(quick=quick),
        )
        (repaired,) = self.of(RepositoryRepaired)
        return repaired

    async def restored(self, stored):
        reader = open_reader(stored.packager, stored.directory, stored.name, BufferPool())
        data = bytearray()
        async with reader as package, package.open_disk(stored.file) as stream:
            async for chunk in stream.pieces():
                data.extend(bytes(chunk.offset - len(data)))
                data += chunk.data
            assert stream.digest == stored.definition.records["vda"].image.digest
        return bytes(data)

    def prune(self):
        return prune_repository(
            self.repository, partial(list_maps, self.repository.storage), lambda: None
        )

    @property
    def segments(self):
        index = files_of(self.repository).index
        return sorted(index.iterdir(), key=lambda path: path.stat().st_mtime_ns)

    def bad(self):
        return sorted(event.backup for event in self.of(VerifyFailed))


@pytest.fixture
def site(tmp_path):
    return DamagedSite(tmp_path)


def nothing_but(repaired, **counts):
    zeros = dict.fromkeys(
        ("dropped_chunks", "left_chunks", "indexed_chunks", "removed_segments", "mended_heads",
         "waiting_maps"), 0
    )  # fmt: skip
    return repaired == RepositoryRepaired(repaired.target, **{**zeros, **counts})


async def test_a_good_repository_is_left_alone(site):
    stored = await site.store_chunks([1, 2])
    root = files_of(site.repository).root
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.*")}
    assert nothing_but(await site.repair())
    assert [event.backup for event in site.of(VerifyDone)] == [stored.name]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.*")} == before


@pytest.mark.parametrize("how", ["flip", "cut", "remove", "head"])
async def test_the_next_backup_heals_what_the_disk_still_has(site, how):
    old = await site.store_chunks([1, 2, 3])
    also = await site.store_chunks([7, 3], "db", day=1)
    pack = site.packs[0]
    size = pack.stat().st_size
    match how:
        case "flip":
            flip(pack, size - 1)
        case "head":
            flip(pack, size - 90)
        case "cut":
            pack.write_bytes(pack.read_bytes()[: size - 1])
        case "remove":
            pack.unlink()
    dropped = 3 if how == "remove" else 1
    assert nothing_but(await site.repair(), dropped_chunks=dropped, waiting_maps=2)
    assert site.bad() == sorted([old.name, also.name])
    lost = {event.backup: event.ranges[-1] for event in site.of(DiskDamaged)}
    assert lost[also.name] == (CHUNK_BYTES, CHUNK_BYTES)
    assert nothing_but(await site.repair(), waiting_maps=2), "there is nothing more to mend"
    site.prune()
    healing = await site.store_chunks([1, 9, 3, 2], day=2)
    assert nothing_but(await site.repair())
    assert sorted(event.backup for event in site.of(VerifyDone)) == sorted(
        [old.name, also.name, healing.name]
    )
    assert await site.restored(old) == content([1, 2, 3])
    assert await site.restored(also) == content([7, 3])
    assert not files_of(site.repository).damaged.exists()


async def test_a_second_copy_is_as_good(site):
    stored = await site.store_chunks([1])
    aside = site.segments[0].rename(site.root / "aside")
    await site.store_chunks([1, 2], day=1)
    aside.rename(files_of(site.repository).index / "00-0.index")
    flip(site.packs[0], 70 + 64)
    assert await site.restored(stored) == content([1])
    assert nothing_but(await site.repair(), dropped_chunks=1)
    assert site.bad() == []
    assert await site.restored(stored) == content([1])


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
async def test_a_segment_is_rebuilt_from_the_packs(site, how):
    first, second = await site.store_chunks([1, 2]), await site.store_chunks([3], day=1)
    damaged = site.segments[0]
    match how:
        case "flip":
            flip(damaged, 40)
        case "cut":
            damaged.write_bytes(damaged.read_bytes()[:-1])
        case "remove":
            damaged.unlink()
    assert await site.restored(second) == content([3])
    removed = int(how != "remove")
    assert nothing_but(await site.repair(), indexed_chunks=2, removed_segments=removed)
    assert site.bad() == []
    assert await site.restored(first) == content([1, 2])
    assert nothing_but(await site.repair())


async def test_directories_that_are_lost_are_made_anew(site):
    stored = await site.store_chunks([1, 2])
    shutil.rmtree(files_of(site.repository).leases)
    shutil.rmtree(files_of(site.repository).index)
    assert await site.verify() == []
    assert {event.exit_code for event in site.of(VerifyFailed)} == {13}
    assert nothing_but(await site.repair(), indexed_chunks=2)
    assert await site.restored(stored) == content([1, 2])
    shutil.rmtree(files_of(site.repository).packs)
    assert await site.verify() == []
    assert nothing_but(await site.repair(), dropped_chunks=2, waiting_maps=1)
    healing = await site.store_chunks([1, 2], day=1)
    assert await site.verify() == [stored.name, healing.name]


async def test_chunks_behind_a_damaged_head_are_found(site):
    stored = await site.store_chunks([1, 2, 3])
    site.segments[0].unlink()
    flip(site.packs[0], 64 + 20)
    assert nothing_but(await site.repair(), indexed_chunks=2, waiting_maps=1)
    assert site.of(DiskDamaged)[0].ranges == ((0, CHUNK_BYTES),)
    assert site.bad() == [stored.name]


async def test_no_head_is_written_into_a_file_that_has_other_names(site, tmp_path):
    await site.store_chunks([1])
    (pack,) = site.packs
    flip(pack, 3)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.hardlink_to(pack)
    content = elsewhere.read_bytes()
    with pytest.raises(StorageError, match="it is a hard link"):
        await site.repair()
    assert elsewhere.read_bytes() == content


async def test_the_head_of_a_pack_is_written_anew(site):
    stored = await site.store_chunks([1])
    before = site.packs[0].read_bytes()
    flip(site.packs[0], 20)
    assert nothing_but(await site.repair(), mended_heads=1)
    assert site.packs[0].read_bytes() == before
    assert await site.verify() == [stored.name]


@pytest.mark.parametrize("how", ["flip", "remove"])
async def test_what_it_is_follows_from_the_packs(site, how):
    stored = await site.store_chunks([1])
    file = files_of(site.repository).root / "repository"
    before = file.read_bytes()
    if how == "flip":
        flip(file, 30)
    else:
        file.unlink()
    with pytest.raises(CorruptError, match="repair"):
        await site.store_chunks([1], day=1)
    assert nothing_but(await site.repair())
    assert file.read_bytes() == before
    assert await site.restored(stored) == content([1])


async def test_what_it_is_is_not_guessed(site):
    await site.store_chunks([1])
    (files_of(site.repository).root / "repository").write_text("?")
    flip(next((site.target / ".virtbackup-repository/packs").rglob("*.pack")), 20)
    with pytest.raises(CorruptError, match="do not show"):
        await site.repair()


async def test_a_damaged_note_of_condemned_packs_goes(site):
    stored = await site.store_chunks([1])
    files_of(site.repository).pending_deletion.write_text("?")
    with pytest.raises(CorruptError, match="repair"):
        await site.store_chunks([1], day=1)
    assert nothing_but(await site.repair())
    assert not files_of(site.repository).pending_deletion.exists()
    assert await site.verify() == [stored.name]


@pytest.mark.parametrize("at", [3, 40, 60, 96, -1])
async def test_a_damaged_map_costs_its_backup_and_the_sweep_goes_on(site, at):
    bad, good = await site.store_chunks([1, 2]), await site.store_chunks([3], day=1)
    gone = await site.store_chunks([8, 9], day=2)
    flip(bad.package, at % bad.package.stat().st_size)
    gone.path.unlink()
    gone.package.unlink()
    with pytest.raises(CorruptError, match="repair"):
        site.prune()
    assert nothing_but(await site.repair(), waiting_maps=1)
    assert site.bad() == [bad.name]
    stored_bytes = site.prune().freed_bytes
    assert stored_bytes > 0
    assert await site.restored(good) == content([3])
    flip(bad.package, at % bad.package.stat().st_size)
    assert await site.restored(bad) == content([1, 2]), "what it needs is still there"
    site.prune()


async def test_damage_that_comes_later_stops_the_sweep_again(site):
    await site.store_chunks([1, 2])
    pack = site.packs[0]
    flip(pack, pack.stat().st_size - 1)
    await site.repair()
    site.prune()
    packs = site.packs
    site.segments[0].unlink()
    with pytest.raises(CorruptError, match="repair"):
        site.prune()
    assert site.packs == packs
    assert (await site.repair()).indexed_chunks == 1
    site.prune()
    flip(files_of(site.repository).damaged, 5)
    with pytest.raises(CorruptError, match="repair"):
        site.prune()


async def test_what_comes_back_is_still_there_for_the_next_repair(site):
    stored = await site.store_chunks([1, 2])
    pack = site.packs[0]
    aside = pack.rename(site.root / "aside")
    assert nothing_but(await site.repair(), dropped_chunks=2, waiting_maps=1)
    aside.rename(pack)
    assert site.prune().freed_bytes == 0
    assert nothing_but(await site.repair(), indexed_chunks=2)
    assert await site.restored(stored) == content([1, 2])
    stored.package.unlink()
    site.prune()
    assert site.packs == []


async def test_what_a_running_backup_has_written_is_left_to_it(site):
    await site.store_chunks([1])
    writer = ChunkWriters().open(site.repository, 1)
    data = content([5])
    writer.add({chunk_id(data): memoryview(data)})
    writer.publish()
    pack = max(site.packs, key=lambda path: path.stat().st_mtime_ns)
    flip(pack, pack.stat().st_size - 1)
    assert nothing_but(await site.repair(), left_chunks=1)
    writer.close()
    assert nothing_but(await site.repair(), dropped_chunks=1)


async def test_it_is_not_beside_a_sweep(site):
    await site.store_chunks([1])
    lease = take_lease(site.repository.storage, PRUNER)
    with pytest.raises(LockHeldError):
        await site.repair()
    lease.close()
    assert nothing_but(await site.repair())
    assert list(files_of(site.repository).leases.iterdir()) == []


async def test_quick_reads_nothing(site):
    await site.store_chunks([1, 2])
    await site.store_chunks([3], day=1)
    first, second = site.packs
    flip(first, first.stat().st_size - 1)
    second.unlink()
    assert nothing_but(await site.repair(quick=True), dropped_chunks=1, waiting_maps=1)
    assert nothing_but(await site.repair(), dropped_chunks=1, waiting_maps=2)


async def test_a_segment_of_somebody_else_is_for_a_person(site):
    await site.store_chunks([1])
    other = DamagedSite(site.root / "other")
    await other.store_chunks([2])
    foreign = files_of(site.repository).index / other.segments[0].name
    foreign.write_bytes(other.segments[0].read_bytes())
    with pytest.raises(ForeignRepositoryError):
        await site.repair()
    assert foreign.exists()


async def test_a_map_of_another_repository_is_for_a_person(site):
    stored = await site.store_chunks([1])
    other = DamagedSite(site.root / "other")
    elsewhere = await other.store_chunks([2])
    foreign = map_of(elsewhere).read_bytes()
    map_of(stored).write_bytes(foreign)
    with pytest.raises(ForeignRepositoryError):
        await site.repair()
    assert map_of(stored).read_bytes() == foreign


@pytest.mark.parametrize("kind", ["segment", "pack", "map", "repository"])
async def test_what_a_newer_program_wrote_is_let_be(site, kind):
    stored = await site.store_chunks([1])
    path, newer = written_by_a_newer_program(site, stored, kind)
    with pytest.raises(NewerVersionError):
        await site.repair()
    assert path.read_bytes() == newer


def written_by_a_newer_program(site, stored, kind):
    """Give a file the next version of its format, its checksum with it."""
    match kind:
        case "repository":
            path = files_of(site.repository).root / "repository"
            what_it_is = json.loads(path.read_bytes().split(b"\n")[0]) | {"version": 2}
            path.write_bytes(sealed_json.dumps(what_it_is))
        case "pack":
            (path,) = site.packs
            data = bytearray(path.read_bytes())
            data[8] += 1
            data[60:64] = zlib.crc32(data[:60]).to_bytes(4, "little")
            path.write_bytes(data)
        case _:
            path = site.segments[0] if kind == "segment" else map_of(stored)
            data = bytearray(path.read_bytes())
            data[8] += 1
            data[-32:] = blake3(data[:-32]).digest()
            path.write_bytes(data)
    return path, path.read_bytes()


@pytest.fixture
def advice(monkeypatch):
    """Let every error of damage have a hint: hints are for people, and decide nothing."""
    plain = CorruptError.__init__

    def advising(self, message, *, hint=None):
        plain(self, message, hint=hint or "Ask somebody who knows.")

    monkeypatch.setattr(CorruptError, "__init__", advising)


@pytest.mark.usefixtures("advice")
@pytest.mark.parametrize("kind", ["segment", "pack", "head", "cut", "map", "condemned", "what"])
async def test_damage_that_comes_with_a_hint_is_repaired_all_the_same(site, kind):
    stored = await site.store_chunks([1, 2])
    (pack,) = site.packs
    match kind:
        case "segment":
            flip(site.segments[0], 40)
        case "pack":
            flip(pack, pack.stat().st_size - 1)
        case "head":
            flip(pack, 8)
        case "cut":
            pack.write_bytes(pack.read_bytes()[:50])
        case "map":
            flip(map_of(stored), 8)
        case "condemned":
            files_of(site.repository).pending_deletion.write_bytes(b"x")
        case "what":
            flip(files_of(site.repository).root / "repository", 3)
    await site.repair()
    repaired = await site.repair()
    waits = int(kind in {"pack", "cut", "map"})
    assert nothing_but(repaired, waiting_maps=waits), "there is nothing more to mend"
    assert (site.bad() == []) == (waits == 0)


def map_of(stored):
    return stored.directory / f"{stored.file}.map"


@pytest.mark.parametrize("kind", [".pack", ".map", "segment"])
async def test_what_cannot_be_read_now_is_not_taken_out(site, kind):
    """What is out of the index, the next prune removes: a stale handle must not cost a backup."""
    stored = await site.store_chunks([1, 2, 0, 3])
    index = {path.name: path.read_bytes() for path in site.segments}

    directory = files_of(site.repository).index

    def is_meant(path):
        return path.parent == directory if kind == "segment" else path.suffix == kind

    with failing("open", is_meant, errno.ESTALE) as failed:
        with pytest.raises(StorageError, match="Stale file handle"):
            await site.repair()
        assert await site.verify() == []
    assert failed
    assert {event.exit_code for event in site.of(VerifyFailed)} == {StorageError.exit_code}
    assert {path.name: path.read_bytes() for path in site.segments} == index
    assert stored.read().verified is None
    site.prune()
    assert await site.restored(stored) == content([1, 2, 0, 3])
    assert await site.verify() == [stored.name]
