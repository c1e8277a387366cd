"""packagers/tar/format.py: headers that other programs understand, also of huge members."""

import io
import subprocess
import tarfile
from contextlib import asynccontextmanager

import pytest

from virtbackup_async.errors import CorruptError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.packager import Location
from virtbackup_async.packagers.tar.format import Layout, end_of_archive, member_head, padding
from virtbackup_async.packagers.tar.reader import open_reader

GIB = 1 << 30


def test_layout_places_stored_bytes_one_after_the_other():
    layout = Layout([Extent(100, 50), Extent(1000, 10)])
    assert layout.length_bytes == 60
    assert [layout.position(offset) for offset in (100, 149, 1000, 1009)] == [0, 49, 50, 59]


def test_empty_layout_has_no_length():
    assert Layout([]).length_bytes == 0


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513, 10240, 10241])
def test_archive_ends_on_a_record_with_two_empty_blocks(length):
    length += -length % 512
    end = end_of_archive(length)
    assert len(end) >= 1024
    assert (length + len(end)) % tarfile.RECORDSIZE == 0


class HugeArchive(io.RawIOBase):
    """An archive of which only the headers are in memory; between them are zeros."""

    def __init__(self):
        self.pieces = []
        self.length = 0
        self.place = 0

    def append(self, data, then_zeros=0):
        self.pieces.append((self.length, data))
        self.length += len(data) + then_zeros

    def readable(self):
        return True

    def seekable(self):
        return True

    def tell(self):
        return self.place

    def seek(self, offset, whence=io.SEEK_SET):
        self.place = offset + {0: 0, 1: self.place, 2: self.length}[whence]
        return self.place

    def readinto(self, target):
        count = max(0, min(len(target), self.length - self.place))
        target[:count] = bytes(count)
        for start, data in self.pieces:
            low, high = max(start, self.place), min(start + len(data), self.place + count)
            if low < high:
                target[low - self.place : high - self.place] = data[low - start : high - start]
        self.place += count
        return count


@pytest.mark.parametrize("size", [9 * GIB, 8 * GIB - 512, 8 * GIB, 3 << 40])
@pytest.mark.parametrize("holes", [0, GIB])
def test_member_behind_a_huge_one_is_found(size, holes):
    archive = HugeArchive()
    layout = Layout([Extent(0, size)])
    archive.append(member_head("big", size + holes, layout, 0), size + len(padding(size)))
    archive.append(member_head("next", 3, Layout([Extent(0, 3)]), 0) + b"abc" + bytes(509))
    archive.append(end_of_archive(archive.length))
    with tarfile.open(fileobj=archive) as opened:
        assert [(member.name, member.size) for member in opened] == [
            ("big", size + holes),
            ("next", 3),
        ]
        assert opened.extractfile("next").read() == b"abc"


@pytest.mark.parametrize("name", ["plain", "ümläut ☃", "n" * 200, "ü" * 100, "a" * 99 + "b"])
@pytest.mark.parametrize("size", [3, 100000])
@pytest.mark.parametrize("position", [None, 0])
def test_names_of_all_kinds_are_read_back(tmp_path, name, size, position):
    path = tmp_path / "a.tar"
    head = member_head(name, size, Layout([Extent(0, 3)]), 1_700_000_000, position)
    path.write_bytes(head + b"abc" + bytes(509) + end_of_archive(len(head) + 512))
    with tarfile.open(path) as opened:
        (member,) = opened.getmembers()
    assert (member.name, member.size, member.mode) == (name, size, 0o600)
    listed = subprocess.check_output(
        ["tar", "--quoting-style=literal", "-tf", path], env={"LC_ALL": "C.UTF-8"}
    )
    assert listed.decode().rstrip("\n") == name


@pytest.mark.parametrize("holes", [0, 4096])
def test_data_starts_where_it_can_be_written_past_the_page_cache(holes):
    for position in range(0, 5120, 512):
        layout = Layout([Extent(0, 8192)])
        head = member_head("disk", 8192 + holes, layout, 0, position)
        assert (position + len(head)) % 4096 == 0
        assert len(head) <= 4096 + len(member_head("disk", 8192 + holes, layout, 0)) + 1024


@asynccontextmanager
async def open_disk(path):
    location = Location.below(path.parent, Packager("tar"), path.stem)
    async with open_reader(location, BufferPool()) as reader, reader.open_disk("disk") as stream:
        yield stream


def hostile_archive(path, sparse_map, realsize=1000):
    info = tarfile.TarInfo("disk")
    info.size = 1024
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.realsize": str(realsize),
    }
    body = sparse_map.ljust(512, b"\0") + b"x" * 512
    path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + body + bytes(1024))


@pytest.mark.parametrize(
    "sparse_map",
    [
        b"1\n900\n512\n",  # behind the end
        b"1\n-5\n10\n",
        b"1\n0\n-10\n",
        b"2\n500\n100\n0\n100\n",  # backwards
        b"2\n0\n100\n50\n100\n",  # twice
        b"x\n",
        b"99999\n0\n1\n",
        b"",
    ],
)
async def test_impossible_sparse_map_is_corrupt(tmp_path, sparse_map):
    path = tmp_path / "a.tar"
    hostile_archive(path, sparse_map)
    with pytest.raises(CorruptError, match=r"a\.tar"):
        async with open_disk(path):
            pass


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, b"3"])
async def test_member_that_is_no_file_is_corrupt(tmp_path, kind):
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("disk")
    info.type, info.linkname = kind, "/etc/shadow"
    path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    with pytest.raises(CorruptError, match="not a regular file"):
        async with open_disk(path):
            pass
