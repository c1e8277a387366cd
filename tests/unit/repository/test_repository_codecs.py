"""The formats of a repository: what was written is read, and nothing else is ever believed."""

import contextlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtbackup_async.errors import CorruptError
from virtbackup_async.model.extent import Extent
from virtbackup_async.repository.format import index_format, map_format, pack_format, sealed_json
from virtbackup_async.repository.format.chunks import (
    ALL_PAGES,
    CHUNK_BYTES,
    chunk_id,
    extents_of,
    pages_of,
)
from virtbackup_async.repository.format.pack_format import BlobHead, Method

PAGE = 4096
IDS = st.binary(min_size=32, max_size=32)
REPOSITORY = bytes(range(16))
PACK = bytes(range(16, 32))


@given(st.integers(0, 50), st.integers(1, ALL_PAGES))
def test_pages_come_back_as_the_extents_they_were(number, pages):
    extents = extents_of(number, pages, (number + 1) * CHUNK_BYTES)
    assert pages_of(number, extents) == pages
    assert all(a.end < b.start for a, b in itertools.pairwise(extents))


def test_part_of_a_page_is_a_page_and_the_end_of_an_image_cuts_it():
    assert pages_of(0, [Extent(PAGE - 1, 2)]) == 0b11
    assert pages_of(1, [Extent(0, 3 * CHUNK_BYTES)]) == ALL_PAGES
    assert extents_of(0, 1, 100) == [Extent(0, 100)]
    assert extents_of(0, 0b10, 100) == []


@given(st.binary(min_size=1, max_size=64), st.sampled_from(Method))
def test_a_blob_head_says_what_it_was_told(data, method):
    head = BlobHead(chunk_id(data), method, len(data), len(data))
    encoded = pack_format.encode_blob_head(head)
    assert len(encoded) == pack_format.BLOB_HEAD_BYTES
    assert pack_format.decode_blob_head(encoded) == head


@given(st.integers(0, 63), st.integers(1, 255))
def test_a_changed_head_is_refused(place, change):
    heads = [
        pack_format.encode_blob_head(BlobHead(bytes(32), Method.ZSTD, 10, 10)),
        pack_format.encode_head(REPOSITORY, PACK),
    ]
    blob_head, pack_head = (
        head[:place] + bytes([head[place] ^ change]) + head[place + 1 :] for head in heads
    )
    with pytest.raises(CorruptError):
        pack_format.decode_blob_head(blob_head)
    with pytest.raises(CorruptError):
        pack_format.check_head(pack_head, REPOSITORY, PACK)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.binary(min_size=0, max_size=80))
def test_whatever_is_read_is_a_value_or_corrupt(data, payload):
    head = BlobHead(chunk_id(b"x"), Method.ZSTD, 1, len(payload))
    readers = (
        lambda: pack_format.decode_blob(data, bytes(32)),
        lambda: pack_format.decode_chunk(head, payload),
        lambda: pack_format.check_head(data, REPOSITORY, PACK),
        lambda: map_format.decode_head(data),
        lambda: map_format.decode_head(map_format.MAGIC + data),
        lambda: map_format.entry_count(len(data)),
        lambda: index_format.decode_tail(data, len(data)),
        lambda: index_format.check_head(index_format.MAGIC + data, REPOSITORY),
        lambda: sealed_json.loads(data, "file"),
    )
    for read in readers:
        with contextlib.suppress(CorruptError):
            read()


def test_a_frame_that_promises_much_is_not_given_the_room():
    import zstandard  # noqa: PLC0415 -- only here

    bomb = zstandard.ZstdCompressor().compress(bytes(100 * 1024 * 1024))
    head = BlobHead(chunk_id(b"x"), Method.ZSTD, CHUNK_BYTES, len(bomb))
    with pytest.raises(CorruptError, match="length differs"):
        pack_format.decode_chunk(head, bomb)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4))
def test_sealed_json_comes_back_or_is_damaged(value):
    value = {key: str(item) for key, item in value.items()}
    data = sealed_json.dumps(value)
    assert sealed_json.loads(data, "file") == value
    with pytest.raises(CorruptError):
        sealed_json.loads(data[:-2], "file")


ENTRIES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=4)


@given(st.integers(0, 10 * CHUNK_BYTES), st.integers(-1, 9), ENTRIES)
def test_entries_are_inside_their_image_and_behind_each_other(size_bytes, last, entries):
    head = map_format.MapHead(REPOSITORY, size_bytes)
    block = np.array([(*entry, bytes(32)) for entry in entries], dtype=map_format.ENTRY)
    numbers = [last, *(number for number, _ in entries)]
    fits = all(a < b for a, b in itertools.pairwise(numbers))
    fits &= all(number * CHUNK_BYTES < size_bytes and pages for number, pages in entries)
    try:
        map_format.check_entries(block, last, head)
    except CorruptError:
        assert not fits
    else:
        assert fits


@given(st.lists(IDS, unique=True, max_size=50), IDS)
def test_a_bucket_gives_the_records_of_an_id_alone(ids, other):
    records = [index_format.Record(id_, n, n, n) for n, id_ in enumerate(ids)]
    bucket = index_format.encode_records(records).tobytes()
    for place, record in enumerate(records):
        assert list(index_format.find_in_bucket(bucket, record.id)) == [(place, record)]
    if other not in ids:
        assert list(index_format.find_in_bucket(bucket, other)) == []


def test_what_looks_like_an_id_between_two_records_is_none():
    records = [index_format.Record(bytes([n]) * 32, 0, 0, 0) for n in (1, 2)]
    bucket = index_format.encode_records(records).tobytes()
    assert list(index_format.find_in_bucket(bucket, bucket[20:52])) == []
