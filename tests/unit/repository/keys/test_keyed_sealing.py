"""keys/keyed_sealing.py: blobs that open for their keys, their id and their content alone."""

import random
from itertools import pairwise

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.known_keys import MASTERS, keys, other_keys
from virtbackup_async.errors import ConfigError, CorruptError
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.format.chunks import CHUNK_BYTES, ID_BYTES, chunk_id
from virtbackup_async.repository.keys.keyed_sealing import (
    ALIGNMENT,
    HEAD_BYTES,
    SHAPE,
    KeyedSealing,
)
from virtbackup_async.repository.keys.keyring import Keys

SEALING = KeyedSealing(keys())
WITHOUT = KeyedSealing(keys(can_read=False))


def sealed(data, sealing=SEALING):
    """The id and the blob of a chunk."""
    id_ = sealing.id_of(chunk_id(data))
    return id_, sealing.seal(id_, memoryview(data), zstandard.ZstdCompressor().compress(data))


def test_the_shape_of_a_blob_is_as_documented():
    assert HEAD_BYTES == 128
    assert SHAPE.max_blob_bytes == 128 + CHUNK_BYTES + 16
    assert SHAPE.tail_bytes == 32


@settings(deadline=None)
@given(st.integers(1, CHUNK_BYTES), st.booleans(), st.integers(0, 1 << 30))
def test_a_chunk_comes_back_in_a_blob_of_whole_units(length, is_random, seed):
    data = random.Random(seed).randbytes(length) if is_random else bytes([seed % 256]) * length
    id_, blob = sealed(data)
    assert bytes(SEALING.open(blob, id_)) == data
    assert len(blob) % ALIGNMENT == 0
    assert len(blob) <= SHAPE.max_blob_bytes
    assert SEALING.look(blob[:HEAD_BYTES]) == (id_, len(blob))
    for sealing in (SEALING, WITHOUT):
        sealing.check(blob, id_)
    assert id_ not in blob
    assert chunk_id(data) not in blob


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_changed_blob_never_opens(data):
    chunk = random.Random(5).randbytes(200) + bytes(1000)
    id_, blob = sealed(chunk)
    at = data.draw(st.integers(0, len(blob) - 1))
    change = data.draw(st.integers(1, 255))
    changed = blob[:at] + bytes([blob[at] ^ change]) + blob[at + 1 :]
    for sealing in (SEALING, WITHOUT):
        with pytest.raises(CorruptError):
            sealing.check(changed, id_)
    cut = blob[: data.draw(st.integers(0, len(blob) - 1))]
    for sealing in (SEALING, WITHOUT):
        with pytest.raises(CorruptError):
            sealing.check(cut, id_)
        with pytest.raises(CorruptError):
            sealing.check(blob + b"\0" * ALIGNMENT, id_)


def test_parts_of_blobs_cannot_be_exchanged():
    one, two = sealed(b"a" * 1000), sealed(b"b" * 1000)
    assert len(one[1]) == len(two[1])
    mixed = one[1][:HEAD_BYTES] + two[1][HEAD_BYTES:]
    for sealing in (SEALING, WITHOUT):
        for blob, id_ in ((mixed, one[0]), (two[1], one[0])):
            with pytest.raises(CorruptError):
                sealing.check(blob, id_)


def test_other_keys_open_nothing_and_make_other_ids():
    id_, blob = sealed(b"a" * 1000)
    other = KeyedSealing(other_keys())
    assert other.id_of(chunk_id(b"a" * 1000)) != id_
    with pytest.raises(CorruptError):
        other.look(blob[:HEAD_BYTES])
    assert other != SEALING
    assert KeyedSealing(keys()) == SEALING
    assert len({KeyedSealing(keys()), SEALING}) == 1


def test_without_the_wrapping_key_nothing_is_opened_or_sealed():
    id_, blob = sealed(b"a" * 1000)
    assert not WITHOUT.can_read
    assert WITHOUT.id_of(chunk_id(b"a" * 1000)) == id_
    with pytest.raises(ConfigError):
        WITHOUT.open(blob, id_)
    with pytest.raises(ConfigError):
        sealed(b"a", WITHOUT)


def test_after_a_rotation_old_blobs_open_and_new_ones_only_with_the_new_keys():
    rotated = KeyedSealing(keys(generations=2))
    id_, old = sealed(b"a" * 1000)
    same, new = sealed(b"a" * 1000, rotated)
    assert same == id_, "equal chunks are still found"
    assert rotated != SEALING, "a blob of the one may be closed to the other"
    assert bytes(rotated.open(old, id_)) == bytes(rotated.open(new, id_)) == b"a" * 1000
    with pytest.raises(CorruptError):
        SEALING.look(new[:HEAD_BYTES])
    second = KeyedSealing(Keys(MASTERS[1:]))
    with pytest.raises(CorruptError):
        second.look(new[:HEAD_BYTES])


def test_no_nonce_comes_twice_under_a_key(monkeypatch):
    monkeypatch.setattr(pack_format, "PACK_BYTES", 100_000)
    sealing = KeyedSealing(keys())
    heads = []
    for number in range(60):
        chunk = random.Random(number).randbytes(10_000)
        _, blob = sealed(chunk, sealing)
        heads.append(sealing._head(blob))
    used = [(head.wrapped, head.number) for head in heads]
    assert len(set(used)) == len(used)
    wrapped = [head.wrapped for head in heads]
    assert len(set(wrapped)) == 6
    assert [key for key, following in pairwise(wrapped) if key != following] == list(
        dict.fromkeys(wrapped)
    )[:-1]
    assert not set(wrapped) & {KeyedSealing(keys())._head(sealed(b"x")[1]).wrapped}


def test_the_same_chunk_is_never_sealed_alike():
    blobs = [bytes(sealed(b"a" * 1000)[1]) for _ in range(20)]
    for at in range(0, len(blobs[0]), 16):
        assert len({blob[at : at + 16] for blob in blobs}) == 20


def test_the_ids_of_many_are_those_of_each():
    leaves = np.frombuffer(random.Random(1).randbytes(ID_BYTES * 100), dtype=f"V{ID_BYTES}")
    ids = SEALING.ids_of(leaves)
    assert [id_.tobytes() for id_ in ids] == [SEALING.id_of(leaf.tobytes()) for leaf in leaves]
    assert len(SEALING.ids_of(leaves[:0])) == 0


def test_blobs_begin_at_whole_units_of_the_pack():
    window = bytes(50)
    assert list(SEALING.candidates(window, 0)) == [0, 16, 32, 48]
    assert list(SEALING.candidates(window, 65)) == [15, 31, 47]
