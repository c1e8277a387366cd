"""served/copied.py: what is looked up at many places is read once, and the rest is not copied."""

import random

import pytest

from fakes.memory_storage import MemoryStorage
from store_servers import served
from virtbackup_async.errors import CorruptError

INDEX = ".virtbackup-repository/index/1-1.index"
PACK = ".virtbackup-repository/packs/aa/1.pack"
CONTENT = random.Random(1).randbytes(3_000_000)


class Counting(MemoryStorage):
    """Counts the reads of its files."""

    reads = 0
    cut_off = 0

    def open(self, name):
        file = super().open(name)
        read = file.read

        def counted(length_bytes, offset):
            self.reads += 1
            return read(length_bytes, offset)[: length_bytes - self.cut_off]

        file.read = counted
        return file


@pytest.fixture
def inner():
    storage = Counting()
    storage.directories |= {"web"} | {
        f".virtbackup-repository{below}" for below in ("", "/index", "/packs", "/packs/aa")
    }
    for name in (INDEX, PACK, "web/1_vda.map"):
        storage.put_new(name, CONTENT)
    return storage


@pytest.mark.parametrize("name", [INDEX, "web/1_vda.map"])
def test_a_file_of_many_looks_is_read_once(inner, name):
    file = served(inner).open(name)
    reads = inner.reads
    assert reads == 3
    inner.remove(name)
    for at in range(0, len(CONTENT), 100_000):
        assert file.read(48, at) == CONTENT[at : at + 48]
    assert file.size_bytes == len(CONTENT)
    assert inner.reads == reads
    file.close()


def test_a_pack_is_not_copied(inner):
    file = served(inner).open(PACK)
    assert inner.reads == 0
    assert file.read(10, 5) == CONTENT[5:15]
    assert inner.reads == 1


def test_without_space_for_a_copy_the_file_itself_is_read(inner, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    file = served(inner).open(INDEX)
    assert file.read(10, 5) == CONTENT[5:15]
    assert inner.reads == 1


def test_a_file_that_became_shorter_is_cut_off(inner):
    inner.cut_off = 1
    with pytest.raises(CorruptError, match="cut off"):
        served(inner).open(INDEX)


def test_a_missing_file_is_missing(inner):
    with pytest.raises(FileNotFoundError):
        served(inner).open(".virtbackup-repository/index/2-1.index")
