"""Damaged maps in an encrypted repository: repair records them, and what they still name stays."""

from contextlib import closing

import pytest

from fakes.known_keys import REPOSITORY_ID, keys
from fakes.memory_storage import MemoryStorage
from virtbackup_async.errors import CorruptError, NewerVersionError
from virtbackup_async.repository.data.known_damage import content_of_map, readable_leaves
from virtbackup_async.repository.data.maps import MapWriter, open_map
from virtbackup_async.repository.format.chunks import ALL_PAGES, CHUNK_BYTES
from virtbackup_async.repository.format.map_format import MapEntry, MapHead, entries_of
from virtbackup_async.repository.keys import file_format as wire
from virtbackup_async.repository.storage.sealed import SealedStorage

COUNT = 5000
NAME = "web/a.map"
HEAD = wire.HEAD_BYTES
SEGMENT = wire.SEALED_SEGMENT_BYTES


def leaf(number):
    return number.to_bytes(32, "big")


@pytest.fixture
def inner():
    return MemoryStorage()


@pytest.fixture
def storage(inner):
    """A sealed storage with a map of several segments."""
    made = SealedStorage(inner, keys(generations=2), REPOSITORY_ID)
    made.make_directory("web")
    image = MapWriter(made, NAME, MapHead(REPOSITORY_ID, COUNT * CHUNK_BYTES))
    image.add(entries_of([MapEntry(at, ALL_PAGES, leaf(at)) for at in range(COUNT)]))
    image.finish()
    image.publish()
    return made


@pytest.fixture
def data(inner, storage):
    """What is stored of the map."""
    (file,) = inner.files.values()
    return file.data


def numbers(storage):
    """The numbers of the leaves that can be read."""
    return [int.from_bytes(each.tobytes(), "big") for each in readable_leaves(storage, NAME)]


def test_of_a_good_map_all_is_readable(storage):
    assert numbers(storage)[:COUNT] == list(range(COUNT))


@pytest.mark.parametrize("segment", [0, 1, 2, 3])
def test_a_flipped_bit_costs_the_entries_of_its_segment(storage, data, segment):
    before = content_of_map(storage, NAME)
    data[HEAD + segment * SEGMENT + 100] ^= 1
    with pytest.raises(CorruptError), closing(open_map(storage, NAME)) as image:
        list(image.blocks())
    found = numbers(storage)
    lost = set(range(COUNT)) - set(found)
    per_segment = wire.SEGMENT_BYTES // 48
    assert per_segment / 2 < len(lost) <= per_segment + 2
    # Those beside each other, of this segment alone.
    assert max(lost) - min(lost) < len(lost)
    assert min(lost) <= (segment * wire.SEGMENT_BYTES + 100) // 48 <= max(lost) + 1
    assert content_of_map(storage, NAME) != before
    data[HEAD + segment * SEGMENT + 100] ^= 1
    assert content_of_map(storage, NAME) == before


def test_a_map_that_is_cut_off_still_names_what_is_left(storage, data):
    del data[HEAD + 2 * SEGMENT :]
    assert numbers(storage) == list(range((2 * wire.SEGMENT_BYTES - 64) // 48))
    del data[HEAD + SEGMENT + 5 :]
    assert numbers(storage) == list(range((wire.SEGMENT_BYTES - 64) // 48))


@pytest.mark.parametrize("length", [0, 1, HEAD - 1, HEAD, HEAD + 1, HEAD + 16])
def test_of_a_map_that_is_nearly_empty_nothing_is_readable(storage, data, length):
    del data[length:]
    assert numbers(storage) == []
    assert content_of_map(storage, NAME)


@pytest.mark.parametrize("at", range(HEAD))
def test_each_damaged_head_is_damage_and_no_newer_version(storage, data, at):
    data[at] ^= 1
    with pytest.raises(CorruptError):
        open_map(storage, NAME)
    assert numbers(storage) == []


@pytest.mark.parametrize(("at", "value"), [(8, 3), (10, 3)], ids=["version", "generation"])
def test_what_a_newer_program_wrote_is_told_from_damage(storage, inner, at, value):
    cipher = wire.new_cipher(keys(generations=2), wire.Identity(REPOSITORY_ID, "another"))
    head = bytearray(cipher.head)
    head[at] = value
    (name,) = inner.files
    inner.replace(name, bytes(head) + bytes(100))
    with pytest.raises(NewerVersionError):
        open_map(storage, NAME)
