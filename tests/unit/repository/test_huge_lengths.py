"""Lengths that no file has, with checksums that are right: told as damage, and at once."""

import struct
import zlib
from functools import partial

import pytest
from blake3 import blake3

from fakes.repaired import repair
from fakes.small_repository import SmallRepository, content
from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.images.digest import MAX_IMAGE_BYTES, check_length
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository.storage.repository_file import find_repository
from virtbackup_async.repository.usage.totals import total_usage

HUGE = [MAX_IMAGE_BYTES + 1, 1 << 62, (1 << 63) - 1, (1 << 64) - 1]
HUGE_32 = [1 << 20, (1 << 31) - 1, (1 << 32) - 1]
DATA = content([1, 2])
MAP_LENGTH_AT, MAP_ID_AT = 32, 16
RECORD_AT, RECORD_BYTES = 32, 44
TAIL_BYTES = 48


@pytest.fixture
async def place(tmp_path):
    place = SmallRepository(tmp_path / "target")
    await place.back_up("a", DATA)
    return place


def seal(path, data):
    """Write a map or a segment, with its checksum."""
    path.write_bytes(data[:-32] + blake3(data[:-32]).digest())


async def assert_told(place):
    """Every command says that it is damaged, and none removes anything."""
    packs = place.packs()
    with pytest.raises(CorruptError):
        await place.restored("a")
    with pytest.raises(CorruptError):
        place.prune()
    repair(place)
    assert place.packs() == packs


@pytest.mark.parametrize("length", HUGE)
async def test_the_length_of_an_image_in_a_map(place, length):
    path = place.map_path("a")
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, MAP_LENGTH_AT, length)
    seal(path, bytes(data))
    await assert_told(place)


@pytest.mark.parametrize("value", HUGE_32)
@pytest.mark.parametrize("field", [36, 40], ids=["offset", "length"])
async def test_the_place_of_a_chunk_in_the_index(place, field, value):
    (path,) = place.segments()
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, RECORD_AT + field, value)
    seal(path, bytes(data))
    repository = find_repository(place.location)
    total_usage(repository, partial(list_maps, repository.storage), lambda: None)
    await assert_told(place)
    # The repair has read the pack again.
    assert await place.restored("a") == DATA


@pytest.mark.parametrize("value", HUGE_32)
async def test_the_number_of_a_pack_in_the_index(place, value):
    (path,) = place.segments()
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, RECORD_AT + 32, value)
    seal(path, bytes(data))
    await assert_told(place)
    assert await place.restored("a") == DATA


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [
        (0, "<Q", 1 << 62),
        (0, "<Q", 1 << 20),
        (8, "<I", 24),
        (8, "<I", 1 << 31),
        (12, "<I", 1 << 31),
    ],
)
async def test_the_counts_of_a_segment(place, at, form, value):
    (path,) = place.segments()
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, len(data) - TAIL_BYTES + at, value)
    seal(path, bytes(data))
    await assert_told(place)
    assert await place.restored("a") == DATA


@pytest.mark.parametrize("value", HUGE_32)
@pytest.mark.parametrize("field", [8, 12], ids=["chunk", "stored"])
async def test_the_lengths_of_a_chunk_in_a_pack(place, field, value):
    (pack,) = place.packs()
    data = bytearray(pack.read_bytes())
    struct.pack_into("<I", data, 64 + field, value)
    struct.pack_into("<I", data, 124, zlib.crc32(data[64:124]))
    pack.write_bytes(data)
    with pytest.raises(CorruptError):
        await place.restored("a")
    (repaired,) = repair(place)
    assert repaired.waiting_maps == 1


async def test_one_bit_of_the_repositorys_id_in_a_map_is_damage(place):
    path = place.map_path("a")
    data = bytearray(path.read_bytes())
    data[MAP_ID_AT] ^= 1
    path.write_bytes(data)
    (repaired,) = repair(place)
    assert repaired.waiting_maps == 1
    place.prune()
    assert len(place.packs()) == 1


@pytest.mark.parametrize("at", [8, 10, 12], ids=["version", "flags", "chunk length"])
async def test_one_bit_of_the_head_of_a_map_is_damage_and_no_newer_program(place, at):
    path = place.map_path("a")
    data = bytearray(path.read_bytes())
    data[at] ^= 2
    path.write_bytes(data)
    with pytest.raises(CorruptError, match="checksum differs"):
        place.open_map("a")
    (repaired,) = repair(place)
    assert repaired.waiting_maps == 1
    place.prune()


@pytest.mark.parametrize("at", [8, 10, 16], ids=["version", "flags", "repository"])
async def test_one_bit_of_the_head_of_a_segment_is_mended(place, at):
    (path,) = place.segments()
    data = bytearray(path.read_bytes())
    data[at] ^= 2
    path.write_bytes(data)
    await assert_told_of_segment(place)
    assert await place.restored("a") == DATA


async def assert_told_of_segment(place):
    with pytest.raises((CorruptError, StorageError)):
        place.prune()
    (repaired,) = repair(place)
    assert repaired.removed_segments == 1


async def test_a_whole_map_of_another_repository_is_told_as_such(place):
    path = place.map_path("a")
    data = bytearray(path.read_bytes())
    data[MAP_ID_AT] ^= 1
    seal(path, bytes(data))
    with pytest.raises(CorruptError, match="another repository"):
        place.prune()


def test_the_largest_image_is_let_pass():
    check_length(MAX_IMAGE_BYTES)
    for length in (-1, *HUGE):
        with pytest.raises(CorruptError):
            check_length(length)
