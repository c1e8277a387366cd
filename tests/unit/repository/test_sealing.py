"""format/cipher.py: other ids and other blobs need one class, and nothing else.

One class here is a toy, the others are what encrypted repositories have: with all keys, and in a
prune or a repair that cannot open a chunk.
"""

from contextlib import closing

import numpy as np
import pytest
from blake3 import blake3

from fakes.known_keys import keys, other_keys
from fakes.memory_storage import MemoryStorage
from fakes.small_repository import content
from virtbackup_async.errors import CorruptError
from virtbackup_async.repository import (
    CHUNK_BYTES,
    CheckSession,
    ChunkReader,
    ChunkWriters,
    MapEntry,
    MapFile,
    MapHead,
    MapWriter,
    Repository,
    entries_of,
    exclusive_usage,
    lost_ranges_of,
    need_map,
    note_known_damage,
    open_map,
    prune_repository,
    reindex_packs,
    repair_heads,
)
from virtbackup_async.repository.data.base_map import BaseMap
from virtbackup_async.repository.format import pack_format, pack_tail
from virtbackup_async.repository.format.chunks import ALL_PAGES, ID_BYTES, chunk_id
from virtbackup_async.repository.format.cipher import PlainSealing
from virtbackup_async.repository.format.pack_format import (
    BLOB_HEAD_BYTES,
    PLAIN_SHAPE,
    BlobHead,
    Method,
)
from virtbackup_async.repository.keys.keyed_sealing import KeyedSealing
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.layout import INDEX, PACKS
from virtbackup_async.repository.storage.repository_file import make_in

CHUNKS = {number: content([number]) for number in range(1, 9)}
MAPS = [MapFile("web/a.map", "a"), MapFile("web/b.map", "b")]


class ToySealing:
    """Ids that depend on a key, and blobs that it hides: no cipher, but of its shape."""

    def __init__(self, key):
        self.key = key

    shape = PLAIN_SHAPE
    can_read = True
    run_keys = None
    forget = PlainSealing.forget
    look = PlainSealing.look
    candidates = PlainSealing.candidates

    def id_of(self, leaf):
        return blake3(leaf, key=self.key).digest()

    def ids_of(self, leaves):
        ids = b"".join(self.id_of(leaf.tobytes()) for leaf in leaves)
        return np.frombuffer(ids, dtype=f"V{ID_BYTES}")

    def seal(self, id_, data, compressed):
        hidden = self._hidden(id_, compressed)
        head = BlobHead(id_, Method.ZSTD, len(data), len(hidden))
        return pack_format.encode_blob_head(head) + hidden

    def open(self, blob, id_):
        head = pack_format.decode_blob_head(blob)
        frame = self._hidden(id_, bytes(memoryview(blob)[BLOB_HEAD_BYTES:]))
        leaf = chunk_id(data := pack_format.decompressed(head, frame))
        if self.id_of(leaf) != id_ or head.id != id_:
            raise CorruptError("it is another chunk, or of another key")
        return data

    def check(self, blob, id_):
        self.open(blob, id_)

    def _hidden(self, id_, data):
        mask = blake3(id_, key=self.key).digest(len(data))
        return bytes(a ^ b for a, b in zip(data, mask, strict=True))


@pytest.fixture
def storage():
    made = MemoryStorage()
    made.make_directory("web")
    return made


@pytest.fixture(params=["toy", "keyed", "keyed without the wrapping key"])
def repository(storage, request):
    sealing = ToySealing(b"k" * 32) if request.param == "toy" else KeyedSealing(keys())
    return Repository(storage, make_in(storage).id, sealing)


@pytest.fixture
def keeping(repository, request):
    """The repository as a prune and a repair have it."""
    if "without" not in request.node.callspec.params["repository"]:
        return repository
    return Repository(repository.storage, repository.id, KeyedSealing(keys(can_read=False)))


def back_up(repository, name, numbers):
    head = MapHead(repository.id, len(numbers) * CHUNK_BYTES)
    with closing(ChunkWriters().open(repository, 1)) as writer:
        image = MapWriter(repository.storage, name, head)
        leaves = [chunk_id(CHUNKS[number]) for number in numbers]
        chunks = {writer.id_of(chunk_id(CHUNKS[n])): memoryview(CHUNKS[n]) for n in numbers}
        stored_bytes = writer.add(chunks)
        entries = (MapEntry(place, ALL_PAGES, leaf) for place, leaf in enumerate(leaves))
        image.add(entries_of(entries))
        image.finish()
        writer.publish()
        image.publish()
    return stored_bytes, image.digest.finish()


def restored(repository, name):
    with (
        closing(open_map(repository.storage, name)) as image,
        closing(ChunkReader(repository)) as chunks,
    ):
        return [bytes(chunks.read(entry.leaf)) for entry in image.entries()]


def files_below(storage, directory):
    return [name for name in storage.files if name.startswith(directory)]


def on_step():
    """Go on."""


def list_maps_of(storage):
    there = storage.names("web", {Kind.FILE})
    return lambda: [file for file in MAPS if file.name.removeprefix("web/") in there]


def test_what_is_stored_is_hidden_shared_and_read(storage, repository):
    stored_bytes, digest = back_up(repository, "web/a.map", [1, 2, 3])
    assert stored_bytes > 0
    assert back_up(repository, "web/b.map", [3, 1, 2])[0] == 0, "equal chunks are stored once"
    assert restored(repository, "web/b.map") == [CHUNKS[n] for n in (3, 1, 2)]
    stored = b"".join(storage.files[name].data for name in files_below(storage, PACKS))
    index = b"".join(storage.files[name].data for name in files_below(storage, INDEX))
    for number in (1, 2, 3):
        assert chunk_id(CHUNKS[number]) not in stored + index
        assert CHUNKS[number][:64] not in stored
    plain = Repository(MemoryStorage(), repository.id)
    plain.storage.make_directory("web")
    plain = Repository(plain.storage, make_in(plain.storage).id)
    assert back_up(plain, "web/a.map", [1, 2, 3])[1] == digest, "the digest is the image's alone"


def test_another_key_finds_nothing(storage, repository):
    back_up(repository, "web/a.map", [1])
    sealing = KeyedSealing(other_keys())
    if isinstance(repository.sealing, ToySealing):
        sealing = ToySealing(b"x" * 32)
    other = Repository(storage, repository.id, sealing)
    with pytest.raises(CorruptError, match="missing"):
        restored(other, "web/a.map")
    # Somebody who knows the id cannot read the chunk for that.
    with pytest.raises(CorruptError):
        other.sealing.open(blob_in(storage), repository.sealing.id_of(chunk_id(CHUNKS[1])))


def blob_in(storage):
    (pack,) = files_below(storage, PACKS)
    return bytes(storage.files[pack].data[pack_format.HEAD_BYTES :])


def test_what_is_unchanged_is_taken_over(repository):
    back_up(repository, "web/a.map", [1, 2, 3])
    with (
        closing(ChunkWriters().open(repository, 1)) as writer,
        closing(open_map(repository.storage, "web/a.map")) as image,
    ):
        base = BaseMap(image)
        assert base.choose([], [], writer.are_missing) == ()
        assert sum(map(len, base.take_rest())) == 3


def test_a_check_compares_chunks_and_says_what_is_lost(storage, repository, keeping):
    back_up(repository, "web/a.map", [1, 2, 3])
    (pack,) = files_below(storage, PACKS)
    storage.files[pack].data[-1 - repository.sealing.shape.tail_bytes] ^= 1
    repository = keeping
    with closing(CheckSession(repository)) as session:
        check = session.checking
        assert need_map(repository, "web/a.map", check, on_step).missing == 0
        check.look_at_packs(on_step)
        for run in check.runs(on_step):
            check.check(run)
        assert (check.count_needed(), check.count_bad()) == (3, 1)
        lost = lost_ranges_of(repository, "web/a.map", check, on_step)
    assert lost.lost_bytes == CHUNK_BYTES


def test_a_lost_index_is_rebuilt_from_the_packs(storage, repository, keeping):
    back_up(repository, "web/a.map", [1, 2, 3])
    for name in files_below(storage, INDEX):
        storage.remove(name)
    assert reindex_packs(keeping, on_step) == (3, 0)
    assert reindex_packs(keeping, on_step) == (0, 0), "the index has all of the pack"
    assert note_known_damage(keeping, list_maps_of(storage), on_step) == 0
    assert restored(repository, "web/a.map") == [CHUNKS[n] for n in (1, 2, 3)]


@pytest.mark.parametrize("place", ["head", "payload", "checksum", "pack head"])
def test_behind_damage_the_chunks_of_a_pack_are_found_again(storage, repository, keeping, place):
    back_up(repository, "web/a.map", [1, 2, 3])
    (pack,) = files_below(storage, PACKS)
    for name in files_below(storage, INDEX):
        storage.remove(name)
    head_bytes = repository.sealing.shape.blob_head_bytes
    (first,) = {repository.sealing.look(blob_in(storage)[:head_bytes]).length_bytes}
    at = {"head": 5, "payload": head_bytes + 3, "checksum": first - 1, "pack head": -20}[place]
    storage.files[pack].data[pack_format.HEAD_BYTES + at] ^= 1
    assert reindex_packs(keeping, on_step) == (2 + (place == "pack head"), 0)
    if place == "pack head":
        with closing(CheckSession(keeping)) as session:
            session.checking.need_all()
            session.checking.look_at_packs(on_step)
            assert repair_heads(keeping, session.checking) == 1
        with closing(CheckSession(keeping)) as session:
            session.checking.need_all()
            session.checking.look_at_packs(on_step)
            assert not session.checking.damaged_heads


def test_the_tail_of_a_sealed_pack_shows_damage_without_a_key(storage, repository):
    back_up(repository, "web/a.map", [1, 2, 3])
    (pack,) = files_below(storage, PACKS)
    data, tail_bytes = storage.files[pack].data, repository.sealing.shape.tail_bytes
    if not tail_bytes:
        return
    tail = bytes(data[-tail_bytes:])
    assert pack_tail.decode(tail, len(data)) == pack_tail.checksum(bytes(data[:-tail_bytes]))
    for wrong in (tail[:-1], bytes(tail_bytes), bytes([tail[0] ^ 1]) + tail[1:], tail + b"x"):
        with pytest.raises(CorruptError):
            pack_tail.decode(wrong, len(data))
    with pytest.raises(CorruptError):
        pack_tail.decode(tail, len(data) - 64)


def test_chunks_that_no_map_needs_go(storage, repository, keeping):
    back_up(repository, "web/b.map", [4, 5, 6, 7, 1])
    back_up(repository, "web/a.map", [1, 2])
    storage.remove("web/b.map")
    usage = exclusive_usage(repository, list_maps_of(storage), {"web/a.map": 0}, on_step)
    assert usage.own_bytes[0] > 0
    assert usage.unneeded_bytes > 0
    pruned = prune_repository(keeping, list_maps_of(storage), on_step)
    assert pruned.freed_bytes > 0
    assert restored(repository, "web/a.map") == [CHUNKS[1], CHUNKS[2]]
    usage = exclusive_usage(repository, list_maps_of(storage), {"web/a.map": 0}, on_step)
    assert usage.unneeded_bytes == 0
