"""repository/check/scan_pack.py: every good chunk of a pack is found without the index."""

import errno
import os
import struct
import zlib

import pytest
from blake3 import blake3

from fakes.memory_storage import MemoryStorage
from virtbackup_async.errors import StorageError
from virtbackup_async.repository.check import scan_pack
from virtbackup_async.repository.check.scan_pack import chunks_of_pack
from virtbackup_async.repository.index.segments import Location
from virtbackup_async.repository.storage.layout import pack_file
from virtbackup_async.repository.storage.repository_file import make_in

PACK = bytes(range(16))
HEAD = bytes(64)
"""A pack's own head is not read: nobody needs it to find the chunks."""


def blob(data, *, id_=None, stored_bytes=None):
    """A chunk as it is, with its head: docs/reference/repository-format.md."""
    stored = len(data) if stored_bytes is None else stored_bytes
    id_ = blake3(data).digest() if id_ is None else id_
    head = struct.pack("<4sBBHII32s12x", b"blob", 0, 0, 0, stored, stored, id_)
    return head + struct.pack("<I", zlib.crc32(head)) + data


ONE, TWO, THREE = (blob(bytes([n]) * n * 100) for n in (1, 2, 3))
LIES = blob(b"other", id_=bytes(32))


@pytest.fixture
def repository():
    return make_in(MemoryStorage())


def found(repository, *parts):
    """The chunks that are found in a pack: those of the parts that are good, with their places."""
    storage, name = repository.storage, pack_file(PACK)
    storage.make_directory(name.rpartition("/")[0])
    storage.replace(name, HEAD + b"".join(parts))
    return list(chunks_of_pack(repository, PACK))


def places(parts, good):
    """Where the good ones of some parts are."""
    expected, offset = [], len(HEAD)
    for part in parts:
        if part in good:
            expected.append((part[16:48], Location(PACK, offset, len(part))))
        offset += len(part)
    return expected


def test_all_chunks_of_a_pack_are_found_with_their_places(repository):
    parts = [ONE, TWO, ONE, THREE]
    assert found(repository, *parts) == places(parts, parts)
    assert found(repository) == []


def flipped(part, at):
    return part[:at] + bytes([part[at] ^ 1]) + part[at + 1 :]


@pytest.mark.parametrize("at", [0, 4, 20, 63, 64, len(TWO) - 1])
def test_a_damaged_chunk_costs_no_other(repository, at):
    parts = [ONE, flipped(TWO, at), THREE]
    assert found(repository, *parts) == places(parts, [ONE, THREE])


@pytest.mark.parametrize("cut", [1, 200, 201, 263])
def test_a_chunk_that_was_not_written_to_its_end_costs_no_other(repository, cut):
    parts = [ONE, TWO[:-cut], THREE]
    assert found(repository, *parts) == places(parts, [ONE, THREE])
    assert found(repository, ONE, TWO[:-cut]) == places([ONE], [ONE])


@pytest.mark.parametrize("rubbish", [b"x", b"xy", b"blob", b"blobblob", b"blo", ONE[:40], LIES])
def test_rubbish_between_chunks_is_passed_over(repository, rubbish):
    parts = [ONE, rubbish, TWO, rubbish]
    assert found(repository, *parts) == places(parts, [ONE, TWO])
    assert found(repository, rubbish, ONE) == places([rubbish, ONE], [ONE])


def test_a_chunk_in_the_place_of_a_bad_one_is_found(repository):
    bad = blob(b"", id_=bytes(32), stored_bytes=5000)
    parts = [bad, TWO, THREE]
    assert found(repository, *parts) == places(parts, [TWO, THREE])


def test_the_bytes_of_a_good_chunk_are_not_searched(repository):
    outer = blob(b"x" * 10 + ONE + b"blob")
    assert found(repository, outer, TWO) == places([outer, TWO], [outer, TWO])


@pytest.mark.parametrize("window_bytes", [4, 5, 63, 64, 65, 100, 101])
@pytest.mark.parametrize("rubbish_bytes", range(90, 105))
def test_a_head_is_found_across_the_ends_of_reads(
    repository, monkeypatch, window_bytes, rubbish_bytes
):
    monkeypatch.setattr(scan_pack, "_WINDOW_BYTES", window_bytes)
    parts = [b"b" * rubbish_bytes, TWO]
    assert found(repository, *parts) == places(parts, [TWO])


class Unreadable(MemoryStorage):
    """A storage of which reads from some offset on fail."""

    number, offset = errno.EIO, 0

    def open(self, name):
        file, read = super().open(name), super().open(name).read

        def fail(length_bytes, offset):
            if offset == self.offset and length_bytes > len(HEAD):
                raise OSError(self.number, os.strerror(self.number))
            return read(length_bytes, offset)

        file.read = fail
        return file


def test_only_the_files_own_errors_make_a_chunk_bad():
    repository = make_in(storage := Unreadable())
    parts = [ONE, TWO, THREE]
    storage.offset = len(HEAD + ONE)
    assert found(repository, *parts) == places(parts, [ONE, THREE])
    storage.number = errno.ESTALE
    with pytest.raises(StorageError, match="cannot read"):
        found(repository, *parts)


def test_a_pack_that_is_gone_is_missing(repository):
    with pytest.raises(FileNotFoundError):
        list(chunks_of_pack(repository, PACK))
