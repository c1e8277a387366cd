"""served/append_only.py: a writer adds files, and changes none, whatever it sends."""

import tempfile
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.memory_storage import MemoryStorage
from store_clients import REQUESTS, client_of, numbered
from store_servers import served
from virtbackup_async.errors import StorageError
from virtbackup_async.repository.storage import layout
from virtbackup_async.repository.storage.interface import Kind, LeaseLook
from virtbackup_async.repository.storage.leases import living_writers, take_lease
from virtbackup_async.repository.storage.local import LocalStorage
from virtbackup_async.repository.storage.served.append_only import AppendOnlyStorage

PACK = f"{layout.PACKS}/aa/{'a' * 32}.pack"
SEGMENT = f"{layout.INDEX}/{'a' * 24}-1.index"
LEASE = f"{layout.LEASES}/{'a' * 24}"
OLD = {
    "d/a": b"a map",
    "d/a.json": b"a definition",
    PACK: b"a pack",
    SEGMENT: b"a segment",
    layout.REPOSITORY_FILE: b"the repository",
}


def filled(storage):
    for name in (
        "d", layout.DIRECTORY, layout.PACKS, f"{layout.PACKS}/aa", layout.INDEX, layout.LEASES
    ):  # fmt: skip
        storage.make_directory(name)
    for name, data in OLD.items():
        storage.put_new(name, data)
    return storage


@pytest.fixture
def inner():
    return filled(MemoryStorage())


@pytest.fixture(params=["here", "served"])
def writer(request, inner):
    storage = AppendOnlyStorage(inner)
    if request.param == "here":
        yield storage
        return
    storage = served(storage, append_only=True)
    with closing(storage.link):
        yield storage


def unchanged(inner):
    return all(inner.read(name, 100) == data for name, data in OLD.items())


REFUSED = {
    "remove": lambda s: s.remove("d/a"),
    "remove a pack": lambda s: s.remove(PACK),
    "remove what is not there": lambda s: s.remove("d/none"),
    "replace": lambda s: s.replace("d/a", b"evil"),
    "replace the repository": lambda s: s.replace(layout.REPOSITORY_FILE, b"evil"),
    "overwrite": lambda s: s.overwrite("d/a", b"e"),
    "rename": lambda s: s.rename("d/a.json", "a.json.removed"),
    "a list of packs to be removed": lambda s: s.replace(layout.PENDING_DELETION, b"[]"),
    "known damage": lambda s: s.put_new(layout.KNOWN_DAMAGE, b"[]"),
    "a removal note": lambda s: s.put_new("d/a.json.removed", b"{}"),
    "a hidden removal note": lambda s: s.create_hidden("d/a.json.removed"),
    "a growing removal note": lambda s: s.create("d/a.json.removed"),
    "a pending file": lambda s: s.put_new("d/b.json.pending", b"{}"),
    "a key of a repository that exists": lambda s: s.put_new(f"{layout.DIRECTORY}/keys/a", b"x"),
    "another directory": lambda s: s.make_directory(f"{layout.DIRECTORY}/more"),
    "another file": lambda s: s.put_new(f"{layout.PACKS}/x", b"x"),
    "a lease elsewhere": lambda s: s.take_lease("d/lease", b"who", ()),
    "the sweep's lease": lambda s: s.take_lease(f"{layout.LEASES}/sweep", b"who", ()),
    "a long lease": lambda s: s.take_lease(LEASE, b"x" * 5000, ()),
    "remove no lease": lambda s: s.remove_lease_if("d/a", lambda _: True),
    "temporary files": lambda s: s.remove_temporary_files(["d"], 1e12),
    "release the reserve": lambda s: s.release_reserve(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_writer_is_refused_in_one_line(writer, inner, what):
    before = set(inner.files)
    with pytest.raises(StorageError, match="this key may only add files") as error:
        REFUSED[what](writer)
    assert "\n" not in error.value.message
    assert "keeper" in error.value.hint
    assert unchanged(inner)
    assert set(inner.files) == before


def test_a_writer_adds_what_a_backup_needs(writer, inner):
    writer.make_directory("e")
    writer.put_new("e/b.json", b"new")
    writer.replace("e/c", b"new")
    writer.replace("e/c", b"new")
    pack = writer.create(PACK.replace("aa", "ab"))
    pack.append(b"x")
    pack.finish()
    segment = writer.create_hidden(SEGMENT.replace("-1", "-2"))
    segment.append(b"x")
    segment.finish()
    named = []
    segment.publish(lambda: named.append(True))
    writer.keep_reserve()
    lease = writer.take_lease(LEASE, b"who", (layout.LEASES,))
    lease.refresh()
    assert lease.is_held()
    lease.remove()
    assert named == [True]
    assert inner.read("e/c", 9) == b"new"
    assert inner.exists(PACK.replace("aa", "ab"))
    assert inner.exists(SEGMENT.replace("-1", "-2"))
    assert not inner.exists(LEASE)
    assert unchanged(inner)


def test_a_repository_is_made_by_a_writer_once():
    inner = MemoryStorage()
    writer = AppendOnlyStorage(inner)
    for name in (layout.DIRECTORY, f"{layout.DIRECTORY}/keys"):
        writer.make_directory(name)
    writer.put_new(f"{layout.DIRECTORY}/keys/a", b"key")
    writer.put_new(layout.REPOSITORY_FILE, b"it")
    with pytest.raises(FileExistsError):
        writer.put_new(layout.REPOSITORY_FILE, b"other")
    with pytest.raises(StorageError):
        writer.put_new(f"{layout.DIRECTORY}/keys/b", b"key")


def test_nothing_is_published_over_another_file(writer, inner):
    file = writer.create_hidden("d/a")
    file.append(b"evil")
    file.finish()
    with pytest.raises(StorageError):
        file.publish(lambda: None)
    file.discard()
    assert unchanged(inner)


def test_a_finished_file_stays(writer, inner):
    pack, part = PACK.replace("aa", "ab"), PACK.replace("aa", "ac")
    finished, unfinished = writer.create(pack), writer.create(part)
    finished.finish()
    finished.discard()
    unfinished.discard()
    assert inner.exists(pack)
    assert not inner.exists(part)


def test_the_lease_of_the_living_is_safe(writer, inner):
    held = inner.take_lease(LEASE, b"who", ())
    looks: list[LeaseLook] = []
    writer.remove_lease_if(LEASE, lambda look: looks.append(look) or True)
    assert held.is_held()
    writer.remove(LEASE)
    assert held.is_held()
    held.remove()
    inner.put_new(LEASE, b"dead")
    writer.remove_lease_if(LEASE, lambda _: True)
    assert not inner.exists(LEASE)
    writer.remove(LEASE)


def test_a_writer_takes_its_leases_as_any(tmp_path):
    inner = filled(LocalStorage(tmp_path, layout.DIRECTORY))
    writer = served(AppendOnlyStorage(inner), append_only=True)
    with closing(writer.link):
        lease = take_lease(writer, "b" * 24)
        assert living_writers(writer) == {"b" * 24} == living_writers(inner)
        lease.check()
    assert living_writers(inner) == set()
    assert inner.names(layout.LEASES, {Kind.FILE}) == []


@settings(max_examples=150, deadline=None)
@given(st.lists(REQUESTS, max_size=40))
def test_whatever_a_thief_sends_the_old_files_stay(requests):
    inner = filled(MemoryStorage())
    with client_of(AppendOnlyStorage(inner), append_only=True) as client:
        client.send(*numbered(requests))
        client.replies(len(requests))
    assert unchanged(inner)
    internal = {name for name in inner.files if name.startswith(layout.DIRECTORY)}
    assert not {name for name in internal if "condemned" in name or "damaged" in name}
    assert not [name for name in inner.files if name.endswith((".removed", ".pending"))]


@settings(max_examples=40, deadline=None)
@given(st.lists(REQUESTS, max_size=30))
def test_whatever_a_thief_sends_the_old_files_of_a_directory_stay(requests):
    with tempfile.TemporaryDirectory(prefix="serving-") as directory:
        inner = filled(LocalStorage(Path(directory), layout.DIRECTORY))
        with client_of(AppendOnlyStorage(inner), append_only=True) as client:
            client.send(*numbered(requests))
            client.replies(len(requests))
        assert unchanged(inner)
        with suppress(FileNotFoundError):
            assert not [n for n in inner.names("d", {Kind.FILE}) if n.endswith(".removed")]
