"""Copies of immutable files on this host: they save requests, and are never trusted."""

import os
import stat

import pytest
from blake3 import blake3

from faults.lossy_proxy import Fault, lossy_proxy
from object_stores import IMPATIENT, new_location, new_storage
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.objects import cache as module
from virtbackup_async.repository.storage.objects.connecting import open_object_storage

SEGMENT = ".virtbackup-repository/index/aa-1.index"
MAP = "web/20260301-021500_3_web_vda.raw.map"
DEFINITION = "web/20260301-021500_3_web.json"
CONTENT = b"x" * 300_000


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv(module.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def storage(object_server, directory):
    return new_storage(object_server)


def again(storage):
    """The same storage, as the next process has it."""
    return open_object_storage(storage.location, IMPATIENT)


def read(storage, name):
    file = storage.open(name)
    try:
        return file.read(file.size_bytes, 0)
    finally:
        file.close()


def gets(storage):
    counts = storage.traffic.by_kind().items()
    return sum(count.requests for (verb, _kind), count in counts if verb == "get")


def copies(directory):
    return sorted(path for path in directory.glob("*/*"))


def test_a_segment_is_asked_for_once(storage, directory):
    storage.put_new(SEGMENT, CONTENT)
    assert read(storage, SEGMENT) == CONTENT
    next_one = again(storage)
    assert read(next_one, SEGMENT) == CONTENT
    assert next_one.traffic.total().requests == 0
    (copy,) = copies(directory)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    for path in (directory, copy.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_map_that_was_listed_is_not_asked_for_again(storage):
    storage.put_new(MAP, CONTENT)
    read(storage, MAP)
    next_one = again(storage)
    next_one.names("web", {Kind.FILE})
    assert read(next_one, MAP) == CONTENT
    assert next_one.traffic.total().requests == 1
    # A list is believed once.
    assert read(next_one, MAP) == CONTENT
    assert next_one.traffic.by_kind()["head", "guests"].requests == 1
    assert gets(next_one) == 0


def test_a_map_that_was_listed_is_looked_at_and_opened_without_more_questions(storage):
    storage.put_new(MAP, CONTENT)
    read(storage, MAP)
    next_one = again(storage)
    next_one.names("web", {Kind.FILE})
    listed = next_one.status(MAP)
    assert (listed.size_bytes, listed.is_file) == (len(CONTENT), True)
    assert read(next_one, MAP) == CONTENT
    assert next_one.traffic.total().requests == 1
    # A list is believed once for each.
    assert next_one.status(MAP).size_bytes == len(CONTENT)
    assert next_one.traffic.by_kind()["head", "guests"].requests == 1


def test_what_was_written_or_removed_since_the_list_is_looked_at_anew(storage):
    for name in ("web/a.map", "web/b.map"):
        storage.put_new(name, b"one")
    storage.names("web", {Kind.FILE})
    storage.replace("web/a.map", b"longer")
    storage.remove("web/b.map")
    assert storage.status("web/a.map").size_bytes == 6
    with pytest.raises(FileNotFoundError):
        storage.status("web/b.map")


def test_a_definition_is_asked_for_when_it_changed(storage):
    storage.put_new(DEFINITION, b"one")
    for content, asked in ((b"one", 1), (b"one", 0), (b"two", 1), (b"two", 0)):
        next_one = again(storage)
        if content == b"two" and asked:
            storage.replace(DEFINITION, content)
        opened = next_one.open_directory("web")
        name = DEFINITION.rpartition("/")[2]
        assert dict(opened.read_each([name], 100)) == {name: content}
        assert gets(next_one) == asked


def test_another_file_of_the_same_name_is_another_copy(storage):
    storage.put_new(MAP, CONTENT)
    assert read(storage, MAP) == CONTENT
    storage.replace(MAP, b"y" * 300_000)
    assert read(again(storage), MAP) == b"y" * 300_000
    storage.remove(MAP)
    with pytest.raises(FileNotFoundError):
        storage.open(MAP)


def flip(path):
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


def cut(path):
    os.truncate(path, 500)


def empty(path):
    os.truncate(path, 0)


def link(path):
    other = path.with_name("elsewhere")
    path.rename(other)
    path.symlink_to(other)


@pytest.mark.parametrize("harm", [flip, cut, empty, link, os.unlink])
def test_a_damaged_copy_counts_as_missing(storage, directory, harm):
    storage.put_new(SEGMENT, CONTENT)
    read(storage, SEGMENT)
    harm(copies(directory)[0])
    next_one = again(storage)
    assert read(next_one, SEGMENT) == CONTENT
    assert gets(next_one) == 1
    assert read(again(storage), SEGMENT) == CONTENT


def make_loose(directory):
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)


def make_a_link(directory):
    (directory.parent / "other").mkdir(mode=0o700)
    directory.symlink_to(directory.parent / "other")


def make_a_file(directory):
    directory.write_text("x")


@pytest.mark.parametrize("make", [make_loose, make_a_link, make_a_file])
def test_a_directory_that_is_not_this_users_alone_is_not_used(storage, directory, make):
    make(directory)
    storage.put_new(SEGMENT, CONTENT)
    for _ in range(2):
        next_one = again(storage)
        assert read(next_one, SEGMENT) == CONTENT
        assert gets(next_one) == 1
    assert list(directory.parent.glob("*/*/*")) == []


def test_without_space_for_a_copy_ranges_are_read(storage, monkeypatch):
    storage.put_new(SEGMENT, CONTENT)

    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def seek(self, _):
            raise OSError(28, "no space")

    monkeypatch.setattr(module.Cache, "new_file", lambda _self: Full())
    assert read(storage, SEGMENT) == CONTENT


def test_an_open_copy_outlives_its_file_and_its_cache(storage, directory):
    storage.put_new(SEGMENT, CONTENT)
    file = storage.open(SEGMENT)
    storage.remove(SEGMENT)
    for copy in copies(directory):
        copy.unlink()
    assert file.read(100, 200_000) == CONTENT[:100]
    file.close()


def test_a_content_that_nothing_proves_is_not_kept(object_server, directory):
    sealed = CONTENT + blake3(CONTENT).digest()
    with lossy_proxy(object_server.endpoint) as proxy:
        storage = open_object_storage(new_location(proxy.endpoint), IMPATIENT)
        storage.put_new(SEGMENT, sealed)
        proxy.plan = lambda method, _path: Fault.SHORTEN if method == "GET" else None
        assert read(storage, SEGMENT) == sealed[: len(sealed) // 2]
        assert copies(directory) == []
        proxy.plan = lambda _method, _path: None
        assert read(storage, SEGMENT) == sealed
        assert len(copies(directory)) == 1


def test_the_copies_used_least_are_removed_first(storage, directory, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1_000_000)
    names = [f".virtbackup-repository/index/aa-{number}.index" for number in range(5)]
    storage.put_new(names[0], CONTENT)
    for number, name in enumerate(names):
        if number:
            storage.put_new(name, CONTENT)
        read(again(storage), name)
        for path in copies(directory):
            os.utime(path, (number, number))
        read(again(storage), names[0])
    assert sum(path.stat().st_size for path in copies(directory)) <= 1_000_000
    last = again(storage)
    read(last, names[0])
    read(last, names[-1])
    assert last.traffic.total().requests == 0


def test_the_directory_is_the_systems_for_root_and_the_users_otherwise(monkeypatch):
    monkeypatch.delenv(module.VARIABLE)
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    assert str(module.cache_directory()) == "/var/cache/virtbackup"
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/u/.cache")
    assert str(module.cache_directory()) == "/home/u/.cache/virtbackup"
