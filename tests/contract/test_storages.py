"""What every storage promises to the repository (``repository/storage/interface.py``)."""

import random
import re
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from fakes.failing_storage import FailingStorage
from fakes.known_keys import REPOSITORY_ID, keys
from fakes.memory_storage import MemoryStorage
from fakes.small_repository import content
from faults.lossy_proxy import at_random, lossy_proxy
from object_stores import IMPATIENT, count_as_probed, memory_object_storage, new_storage
from store_servers import served, served_directory
from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.files.reached_path import UnfitFileError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.packager import Location
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.packagers.repository.reader import open_reader
from virtbackup_async.packagers.repository.writer import open_writer
from virtbackup_async.repository import (
    CHUNK_BYTES,
    find_repository,
    make_repository,
    modified_times,
    open_storage,
    prune_repository,
    repair_repository_file,
    total_usage,
)
from virtbackup_async.repository.keys.names import NameSeal
from virtbackup_async.repository.storage.interface import Kind, Storage
from virtbackup_async.repository.storage.layout import DIRECTORY
from virtbackup_async.repository.storage.local import LocalStorage
from virtbackup_async.repository.storage.objects.storage import ObjectStorage
from virtbackup_async.repository.storage.repository_file import STORAGES
from virtbackup_async.repository.storage.sealed import SealedStorage
from virtbackup_async.repository.storage.served.storage import ServedStorage

FILES, DIRECTORIES, ANY = {Kind.FILE}, {Kind.DIRECTORY}, frozenset(Kind)
WITH_DIRECTORIES: dict[str, Callable[[Path], Storage]] = {
    "local": lambda path: LocalStorage(path, "d"),
    "memory": lambda _path: MemoryStorage(),
    "wrapped": lambda _path: FailingStorage(MemoryStorage()),
    "sealed local": lambda path: SealedStorage(
        LocalStorage(path, NameSeal(keys(), REPOSITORY_ID).seal("", "d")), keys(), REPOSITORY_ID
    ),
    "sealed memory": lambda _path: SealedStorage(MemoryStorage(), keys(), REPOSITORY_ID),
    "served": lambda _path: served(MemoryStorage()),
    "process": served_directory,
}
OVER_SSH = "ssh"
OF_OBJECTS = ("objects", "seaweed", "lossy")


@pytest.fixture(params=[*WITH_DIRECTORIES, OVER_SSH, *OF_OBJECTS])
def storage(request, tmp_path):
    made = make_storage(request, request.param, tmp_path)
    made.make_directory("d")
    if isinstance(made, ObjectStorage):
        count_as_probed(made)
    yield made
    if isinstance(made, ServedStorage):
        made.link.close()


def make_storage(request, kind, tmp_path):
    if kind == OVER_SSH:
        request.getfixturevalue("nas")
        # A name that a shell would take apart.
        target = tmp_path / 'it\'s $HOME; a "target"'
        target.mkdir()
        return open_storage(StorageLocation.of(f"ssh://nas{target}"))
    if kind == "objects":
        return memory_object_storage()
    if kind == "seaweed":
        return new_storage(request.getfixturevalue("object_server"))
    if kind == "lossy":
        return new_storage(request.getfixturevalue("lossy_server"), IMPATIENT)
    return WITH_DIRECTORIES[kind](tmp_path)


@pytest.fixture
def lossy_server(request, object_server):
    """The same server, whose answers are lost, repeated, delayed, cut off or lies."""
    with lossy_proxy(object_server.endpoint) as proxy:
        seed = request.config.getoption("--lossy-seed")
        proxy.plan = at_random(f"{seed} {request.node.name}", share=0.2)
        yield object_server._replace(endpoint=proxy.endpoint)


with_directories = pytest.mark.parametrize("storage", [*WITH_DIRECTORIES, OVER_SSH], indirect=True)
of_objects = pytest.mark.parametrize("storage", OF_OBJECTS, indirect=True)


@pytest.fixture
def location(storage, monkeypatch):
    """Where the storage is, as everything above the storages knows it."""
    monkeypatch.setitem(STORAGES, "test", lambda at: {"one": storage}[at.path])
    return StorageLocation.of("test://one")


def nothing():
    """Take note of nothing."""


# Small files.


def test_what_is_put_is_read(storage):
    storage.put_new("d/a", b"one")
    assert storage.read("d/a", 100) == b"one"
    assert storage.read("d/a", 2) == b"on"
    assert storage.exists("d/a")
    storage.replace("d/a", b"other")
    assert storage.read("d/a", 100) == b"other"
    storage.remove("d/a")
    assert storage.read("d/a", 100) is None
    assert not storage.exists("d/a")


def test_a_name_is_put_once(storage):
    storage.put_new("d/a", b"first")
    with pytest.raises(FileExistsError):
        storage.put_new("d/a", b"second")
    assert storage.read("d/a", 100) == b"first"
    assert storage.names("d", ANY) == ["a"]


def test_a_change_is_made_of_what_is_there(storage):
    storage.put_new("d/a", b"one")
    storage.change("d/a", 100, lambda data: data + b" more")
    storage.change("d/a", 100, lambda data: data + b" again")
    assert storage.read("d/a", 100) == b"one more again"
    assert storage.names("d", ANY) == ["a"]


def test_what_cannot_be_changed_stays(storage):
    with pytest.raises(FileNotFoundError):
        storage.change("d/a", 100, lambda data: data)
    storage.put_new("d/a", b"one")
    with pytest.raises(UnfitFileError):
        storage.change("d/a", 2, lambda data: data)

    def refuse(_data):
        raise CorruptError("no definition")

    with pytest.raises(CorruptError, match="no definition"):
        storage.change("d/a", 100, refuse)
    assert storage.read("d/a", 100) == b"one"


@of_objects
def test_of_two_changes_at_the_same_time_none_is_lost(storage):
    """No lock keeps another process from changing it in between."""
    storage.put_new("d/a", b"one")
    others = [b" other", b" third"]

    def change(data):
        if others:
            other = others.pop()
            storage.change("d/a", 100, lambda data: data + other)
        return data + b" own"

    storage.change("d/a", 100, change)
    assert storage.read("d/a", 100) == b"one third other own"


@of_objects
def test_what_is_removed_while_it_is_changed_does_not_come_back(storage):
    storage.put_new("d/a", b"one")

    def change(data):
        storage.remove("d/a")
        return data + b" more"

    with pytest.raises(FileNotFoundError):
        storage.change("d/a", 100, change)
    assert not storage.exists("d/a")


def test_to_remove_what_is_not_there_is_no_error(storage):
    storage.remove("d/none")


def test_the_first_bytes_are_written_over(storage):
    storage.put_new("d/a", b"0123456789")
    storage.overwrite("d/a", b"abc")
    assert storage.read("d/a", 100) == b"abc3456789"


def test_what_is_not_there_is_not_written_over(storage):
    with pytest.raises(StorageError):
        storage.overwrite("d/none", b"x")
    assert not storage.exists("d/none")


@with_directories
@pytest.mark.parametrize("verb", ["replace", "put_new"])
def test_nothing_is_written_without_a_directory(storage, verb):
    with pytest.raises(StorageError):
        getattr(storage, verb)("none/a", b"x")
    assert not storage.exists("none/a")


# Directories.


def test_an_open_directory_has_names_and_small_files(storage):
    storage.make_directory("d/below")
    storage.put_new("d/below/c", b"three")
    storage.put_new("d/b", b"two")
    storage.put_new("d/a", b"one")
    with closing(storage.open_directory("d")) as directory:
        assert directory.names() == {"a", "b", "below"}
        assert directory.read("a", 3) == b"one"
        with pytest.raises(FileNotFoundError):
            directory.read("none", 3)
        with pytest.raises(UnfitFileError):
            directory.read("a", 2)
        with pytest.raises(OSError, match="below"):
            directory.read("below", 3)


def test_the_files_of_a_directory_are_read_in_the_order_asked_for(storage):
    storage.put_new("d/b", b"two")
    storage.put_new("d/a", b"one")
    with closing(storage.open_directory("d")) as directory:
        asked = ["b", "none", "a", "b"]
        found = list(directory.read_each(iter(asked), 3))
        assert [name for name, _ in found] == asked
        assert [found[0][1], *(content for _, content in found[2:])] == [b"two", b"one", b"two"]
        assert isinstance(found[1][1], FileNotFoundError)
        ((_, too_long),) = directory.read_each(["a"], 1)
        assert isinstance(too_long, UnfitFileError)
        assert list(directory.read_each([], 3)) == []


def test_a_directory_is_held_by_one_alone_or_by_nobody(storage):
    """A storage without locks holds nothing: then both get it."""
    first = storage.hold("d")
    assert first is not None
    second = storage.hold("d")
    first.close()
    if second is not None:
        second.close()
    again = storage.hold("d")
    assert again is not None
    again.close()


def test_a_renamed_file_has_its_new_name_alone(storage):
    storage.put_new("d/a", b"one")
    storage.put_new("d/b", b"two")
    storage.rename("d/a", "b")
    assert storage.names("d", ANY) == ["b"]
    assert storage.read("d/b", 100) == b"one"
    with pytest.raises(StorageError):
        storage.rename("d/a", "c")
    assert storage.names("d", ANY) == ["b"]


def test_a_file_is_replaced_with_or_without_its_owner(storage):
    storage.put_new("d/a", b"one")
    storage.replace("d/a", b"two", keep_owner=True)
    assert storage.read("d/a", 100) == b"two"
    storage.replace("d/b", b"new", keep_owner=True)
    assert storage.read("d/b", 100) == b"new"


# Names.


def test_names_are_listed_by_their_kind(storage):
    storage.make_directory("d/below")
    for name in ("d/b", "d/a", "d/below/c"):
        storage.put_new(name, b"x")
    assert storage.names("d", FILES) == ["a", "b"]
    assert storage.names("d", DIRECTORIES) == ["below"]
    assert storage.names("d", ANY) == ["a", "b", "below"]
    assert storage.names("d", ()) == []
    assert storage.names("", DIRECTORIES) == ["d"]


@with_directories
def test_a_directory_that_is_not_there_is_no_empty_one(storage):
    with pytest.raises(FileNotFoundError) as error:
        storage.names("none", ANY)
    assert error.value.filename


@with_directories
def test_a_directory_is_made_once(storage):
    storage.put_new("d/a", b"x")
    storage.make_directory("d")
    assert storage.names("d", FILES) == ["a"]
    storage.put_new("d/file", b"x")
    with pytest.raises(StorageError):
        storage.make_directory("d/file")
    with pytest.raises(StorageError):
        storage.make_directory("none/below")


@with_directories
def test_only_the_names_of_a_directory_are_synced(storage):
    storage.sync_names("d")
    with pytest.raises(StorageError):
        storage.sync_names("none")


def test_sizes_are_those_of_files_that_are_there(storage):
    storage.make_directory("d/below")
    storage.put_new("d/a", b"12")
    storage.put_new("d/below/b", b"123")
    asked = iter(["d/below/b", "d/none", "d/a", "none/x", "d/below"])
    assert storage.sizes(asked) == {"d/a": 2, "d/below/b": 3}


def test_times_of_many_files_are_those_of_each(storage):
    storage.make_directory("other")
    for name in ("d/a", "d/b", "other/c"):
        storage.put_new(name, b"12")
    times = modified_times(storage, ["d/a", "other/c", "d/none", "none/x"])
    assert times.keys() == {"d/a", "other/c"}
    for name, modified_s in times.items():
        # A list may say it to the second.
        assert modified_s == pytest.approx(storage.status(name).modified_s, abs=1)


def test_a_status_tells_a_file_from_its_successor(storage):
    storage.put_new("d/a", b"12")
    first = storage.status("d/a")
    assert (first.size_bytes, first.is_file) == (2, True)
    assert storage.status("d/a").version == first.version
    assert storage.clock("d") - 60 < first.modified_s <= storage.clock("d")
    storage.replace("d/a", b"34")
    assert storage.status("d/a").version != first.version
    assert not storage.status("d").is_file
    with pytest.raises(FileNotFoundError):
        storage.status("d/none")


@of_objects
def test_a_directory_is_what_names_begin_with(storage):
    assert storage.names("d", ANY) == []
    assert not storage.exists("d")
    storage.sync_names("d")
    storage.put_new("d/below/a", b"x")
    assert storage.names("d", ANY) == ["below"]
    assert storage.exists("d")
    assert not storage.status("d").is_file
    storage.remove("d/below/a")
    assert not storage.exists("d")
    assert storage.names("d/below", ANY) == []
    with pytest.raises(FileNotFoundError):
        storage.status("d")


@pytest.mark.parametrize("name", ["a b", "äöü", "a+b%20c", "~#?&=", "[*]|^`'\"", "x" * 120])
def test_names_are_taken_as_they_are(storage, name):
    storage.make_directory(f"d/{name}")
    storage.put_new(f"d/{name}/{name}", b"x")
    assert storage.names("d", ANY) == [name]
    assert storage.names(f"d/{name}", ANY) == [name]
    assert storage.sizes([f"d/{name}/{name}"]) == {f"d/{name}/{name}": 1}
    assert storage.read(f"d/{name}/{name}", 10) == b"x"


def test_the_longest_names_are_taken_or_refused(storage):
    name = "x" * 200
    try:
        storage.make_directory(f"d/{name}")
    except StorageError:
        assert isinstance(storage, SealedStorage), "only there names grow"
        return
    storage.put_new(f"d/{name}/{name}", b"x")
    assert storage.names(f"d/{name}", ANY) == storage.names("d", ANY) == [name]


# Reading.


def test_ranges_are_read_whole_or_not_at_all(storage):
    storage.put_new("d/a", b"0123456789")
    file = storage.open("d/a")
    assert file.size_bytes == 10
    assert "d/a" in file.where
    for read in (file.read, file.read_once):
        assert read(3, 4) == b"456"
        assert read(10, 0) == b"0123456789"
        assert read(0, 10) == b""
        with pytest.raises(CorruptError):
            read(3, 8)
    assert file.read_up_to(3, 8) == b"89"
    assert file.read_up_to(3, 10) == b""
    file.close()


def test_an_open_file_outlives_its_name(storage):
    storage.put_new("d/a", b"old")
    file = storage.open("d/a")
    storage.replace("d/a", b"new")
    assert file.read(3, 0) == b"old"
    storage.remove("d/a")
    assert file.read(3, 0) == b"old"
    file.close()


def test_a_missing_file_says_which(storage):
    with pytest.raises(FileNotFoundError) as error:
        storage.open("d/none")
    assert error.value.filename == storage.where("d/none")


@pytest.mark.parametrize("length", [65535, 65536, 65537, 131072, 200_001, 1_000_000])
def test_long_files_are_read_anywhere(storage, length):
    data = random.Random(length).randbytes(length)
    grown, hidden = storage.create("d/packs/a"), storage.create_hidden("d/b")
    for at in range(0, length, 30_011):
        grown.append(data[at : at + 30_011])
        hidden.append(bytearray(data[at : at + 30_011]))
    for file in (grown, hidden):
        file.finish()
    hidden.publish(nothing)
    storage.put_new("d/c", data)
    for name in ("d/packs/a", "d/b", "d/c"):
        assert storage.status(name).size_bytes == storage.sizes([name])[name] == length
        assert storage.read(name, length + 1) == data
        assert storage.read(name, length) == data
        assert storage.read(name, length - 1) == data[:-1]
        file = storage.open(name)
        assert file.size_bytes == length
        chosen = random.Random(length)
        for _ in range(50):
            start, end = sorted(chosen.choices(range(length + 1), k=2))
            read = chosen.choice([file.read, file.read_once, file.read_up_to])
            assert read(end - start, start) == data[start:end]
        assert file.read_up_to(10, length - 3) == data[-3:]
        with pytest.raises(CorruptError):
            file.read(2, length - 1)
        file.close()


def test_an_empty_file_is_a_file(storage):
    storage.put_new("d/a", b"")
    storage.create("d/b").finish()
    for name in ("d/a", "d/b"):
        assert storage.read(name, 10) == b""
        assert storage.sizes([name]) == {name: 0}
        assert storage.open(name).size_bytes == 0


# Files that grow.


def test_a_file_grows_and_is_finished(storage):
    file = storage.create("d/packs/a")
    for part in (b"ab", b"", b"cd"):
        file.append(part)
    file.finish()
    assert storage.read("d/packs/a", 100) == b"abcd"


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_file_that_grew_can_be_taken_back(storage, is_finished):
    file = storage.create("d/a")
    file.append(b"ab")
    if is_finished:
        file.finish()
    file.discard()
    file.discard()
    assert not storage.exists("d/a")


@with_directories
def test_a_name_grows_once(storage):
    storage.put_new("d/a", b"first")
    with pytest.raises(StorageError):
        storage.create("d/a")
    assert storage.read("d/a", 100) == b"first"


@of_objects
def test_a_name_is_refused_when_the_file_is_finished(storage):
    storage.put_new("d/a", b"first")
    file = storage.create("d/a")
    file.append(b"second")
    file.finish_soon()
    with pytest.raises(StorageError, match="exists"):
        file.finish()
    file.discard()
    assert storage.read("d/a", 100) == b"first"


def test_files_are_finished_while_others_grow(storage):
    files = [storage.create(f"d/{number}") for number in range(8)]
    for number, file in enumerate(files):
        file.append(bytes([number]) * 1000)
        file.finish_soon()
    for file in files:
        file.finish()
    for number in range(8):
        assert storage.read(f"d/{number}", 2000) == bytes([number]) * 1000


# Hidden files.


def test_a_hidden_file_is_seen_when_it_is_published(storage):
    file = storage.create_hidden("d/a")
    file.append(b"ab")
    file.append(bytearray(b"cd"))
    file.finish()
    assert not storage.exists("d/a")
    told = []
    file.publish(lambda: told.append(storage.read("d/a", 100)))
    assert told == [b"abcd"]
    file.discard()
    assert storage.read("d/a", 100) == b"abcd"
    assert storage.names("d", ANY) == ["a"]


def test_what_is_appended_may_be_used_again(storage):
    file, waiting = storage.create_hidden("d/a"), bytearray(b"first")
    file.append(waiting)
    waiting[:] = b"other"
    file.append(waiting)
    file.finish()
    file.publish(nothing)
    assert storage.read("d/a", 100) == b"firstother"


def test_a_free_name_is_taken_exclusively(storage):
    first, second = storage.create_hidden("d/a"), storage.create_hidden("d/a")
    for file, data in ((first, b"first"), (second, b"second")):
        file.append(data)
        file.finish()
    first.publish_exclusively()
    with pytest.raises(StorageError) as raised:
        second.publish_exclusively()
    assert isinstance(raised.value.__cause__, FileExistsError)
    second.discard()
    assert storage.read("d/a", 100) == b"first"
    assert storage.names("d", ANY) == ["a"]


@pytest.mark.parametrize("is_finished", [True, False])
def test_nobody_sees_a_hidden_file_that_was_taken_back(storage, is_finished):
    file = storage.create_hidden("d/a")
    file.append(b"ab")
    if is_finished:
        file.finish()
    file.discard()
    file.discard()
    assert storage.names("d", ANY) == []


@with_directories
def test_nothing_is_hidden_without_a_directory(storage):
    with pytest.raises(StorageError):
        storage.create_hidden("none/a")


# Leases.


def looks_at(storage, name, *, is_dead=False):
    """What somebody else sees of a lease, and whether it was removed."""
    looks = []

    def look_at(look):
        looks.append(look)
        return is_dead

    storage.remove_lease_if(name, look_at)
    return looks[0]


def test_a_lease_is_held_by_one(storage):
    lease = storage.take_lease("d/lease", b"who", ("d", "d/none"))
    assert lease.is_held()
    assert "d/lease" in lease.where
    with pytest.raises(FileExistsError):
        storage.take_lease("d/lease", b"other", ("d",))
    assert storage.names("d", ANY) == ["lease"]
    assert storage.read("d/lease", 3) == b"who"
    lease.remove()
    assert storage.names("d", ANY) == []
    storage.take_lease("d/lease", b"other", ("d",)).remove()


def test_others_see_who_holds_a_lease(storage):
    lease = storage.take_lease("d/lease", b"who", ("d",))
    look = looks_at(storage, "d/lease")
    assert look.content == b"who"
    assert look.is_locked is not False
    assert lease.is_held()
    lease.remove()
    with pytest.raises(FileNotFoundError):
        looks_at(storage, "d/lease")


@with_directories
def test_a_lease_that_nobody_holds_is_not_locked(storage):
    storage.put_new("d/lease", b"who")
    assert looks_at(storage, "d/lease").is_locked is False
    assert storage.exists("d/lease")
    looks_at(storage, "d/lease", is_dead=True)
    assert not storage.exists("d/lease")


@of_objects
def test_without_locks_a_lease_tells_its_age_alone(storage):
    storage.put_new("d/lease", b"who")
    look = looks_at(storage, "d/lease")
    assert (look.content, look.is_locked, look.expiry_s) == (b"who", None, 24 * 3600)
    assert storage.exists("d/lease")
    looks_at(storage, "d/lease", is_dead=True)
    assert not storage.exists("d/lease")


def test_a_broken_lease_is_not_held(storage):
    lease = storage.take_lease("d/lease", b"who", ("d",))
    storage.remove("d/lease")
    assert not lease.is_held()
    other = storage.take_lease("d/lease", b"other", ("d",))
    assert not lease.is_held()
    lease.refresh()
    lease.remove()
    assert other.is_held()
    other.remove()


def test_a_lease_is_as_old_as_the_storage_says(storage):
    before_s = storage.clock("d")
    lease = storage.take_lease("d/lease", b"who", ("d",))
    lease.refresh()
    look = looks_at(storage, "d/lease")
    assert before_s <= look.modified_s <= storage.clock("d")
    lease.remove()


@with_directories
def test_there_is_no_time_where_there_is_no_directory(storage):
    with pytest.raises(FileNotFoundError):
        storage.clock("none")


# Room.


def test_temporary_files_are_never_those_that_count(storage):
    lease = storage.take_lease("d/lease", b"who", ("d",))
    hidden = storage.create_hidden("d/b")
    storage.put_new("d/a", b"x")
    storage.remove_temporary_files(["d"], storage.clock("d") - 3600)
    hidden.append(b"x")
    hidden.finish()
    hidden.publish(nothing)
    lease.remove()
    storage.remove_temporary_files(["d"], storage.clock("d") + 3600)
    assert storage.names("d", FILES) == ["a", "b"]


@with_directories
def test_a_reserve_is_released_once_and_made_again(storage):
    storage.make_directory(DIRECTORY)
    assert not storage.release_reserve()
    storage.keep_reserve()
    storage.keep_reserve()
    assert storage.release_reserve()
    assert not storage.release_reserve()
    assert storage.free_bytes() > 0


@of_objects
def test_a_store_has_room_and_no_reserve(storage):
    storage.keep_reserve()
    assert not storage.release_reserve()
    assert storage.free_bytes() > 1 << 60


# Everything above.


def on_step():
    """Go on."""


def package(location, name):
    return Location(Packager("repository", {"compression_lvl": 1}), location, "web", name)


async def back_up(location, name, path):
    """Store an image."""
    async with (
        open_writer(package(location, name), CpuShares(2)) as writer,
        open_image_stream(path, BufferPool()) as stream,
    ):
        await writer.add_disk(f"{name}_vda.raw", stream, lambda _: None)
        await writer.finish()
    # And it can be the base of the next.
    async with (
        open_writer(package(location, "next"), CpuShares(2)) as writer,
        writer.open_base(f"{name}_vda.raw") as base,
    ):
        changed = Extent(0, CHUNK_BYTES)
        assert await base.choose([changed]) == (changed,)


async def restored(location, name, path):
    """Read an image back as a stream; its digest and the bytes."""
    async with (
        open_reader(package(location, name), BufferPool()) as reader,
        reader.open_disk(f"{name}_vda.raw") as stream,
    ):
        await write_sparse(stream, path, lambda _: None)
        assert await reader.files() == (f"{name}_vda.raw",)
        async with reader.open_image(f"{name}_vda.raw") as image:
            assert await image.read(5, 7) == path.read_bytes()[5:12]
            assert image.digest == stream.digest
    return path.read_bytes()


async def test_packages_are_stored_and_read_by_the_location_alone(storage, location, tmp_path):
    storage.make_directory("web")
    path = tmp_path / "image"
    first, second = content([1, 2, 3, 0, 4]), content([5, 2, 3, 0, 4])
    path.write_bytes(first)
    await back_up(location, "1", path)
    path.write_bytes(second)
    await back_up(location, "2", path)
    assert await restored(location, "1", tmp_path / "1") == first
    assert await restored(location, "2", tmp_path / "2") == second
    repository = find_repository(location)
    assert repository is not None
    assert repository.storage is storage
    maps = partial(list_maps, repository.storage)
    assert [file.name for file in maps()] == ["web/1_vda.raw.map", "web/2_vda.raw.map"]
    assert total_usage(repository, maps, on_step).chunks == 5
    storage.remove("web/2_vda.raw.map")
    prune_repository(repository, maps, on_step)
    assert total_usage(repository, maps, on_step).chunks == 4
    assert await restored(location, "1", tmp_path / "again") == first


async def test_a_package_that_fails_leaves_no_map(storage, location, tmp_path):
    storage.make_directory("web")
    (tmp_path / "image").write_bytes(content([1]))
    async with (
        open_writer(package(location, "1"), CpuShares(2)) as writer,
        open_image_stream(tmp_path / "image", BufferPool()) as stream,
    ):
        await writer.add_disk("1_vda.raw", stream, lambda _: None)
        await writer.finish()
        await writer.discard()
    assert storage.names("web", ANY) == []


@pytest.mark.parametrize("file", ["1_vda.raw", "none"])
async def test_a_package_that_is_missing_is_reported_with_its_place(storage, location, file):
    storage.make_directory("web")
    async with open_reader(package(location, "1"), BufferPool()) as reader:
        with pytest.raises(CorruptError, match=re.escape(storage.where(f"web/{file}.map"))):
            async with reader.open_disk(file):
                pass
        assert await reader.files() == ()


def test_a_repository_is_found_where_it_was_made(location):
    assert find_repository(location) is None
    assert repair_repository_file(location) is None
    made = make_repository(location)
    found = find_repository(location)
    assert found == made == make_repository(location)


def test_an_unknown_kind_of_storage_is_refused():
    for call in (open_storage, find_repository, make_repository, repair_repository_file):
        with pytest.raises(StorageError, match="unknown kind of storage: elsewhere://one"):
            call(StorageLocation.of("elsewhere://one"))


def test_a_directory_is_a_local_storage(tmp_path):
    storage = open_storage(StorageLocation.of(tmp_path))
    assert storage == open_storage(StorageLocation.of(str(tmp_path)))
    assert isinstance(storage, LocalStorage)
    assert storage.target == tmp_path


def test_two_that_are_equal_are_one(storage, tmp_path):
    assert storage == storage  # noqa: PLR0124 -- the repository is a key
    assert hash(storage) == hash(storage)
    assert LocalStorage(tmp_path, "d") == LocalStorage(tmp_path, "d")
    assert LocalStorage(tmp_path, "d") != LocalStorage(tmp_path / "x", "d")
