"""Readers, removers, pins and results at once in a bucket, one request at a time, and their deaths.

Whatever the order: nothing that is read goes, no pin that was reported as set is lost, and no
package is left without a file that tells of it. ``--histories N`` plays N of each kind.
"""

import random
from functools import partial

import anyio
import obstore.store
import pytest

from fakes.stepped_storage import Actor, DiedError, SteppedStorage, play
from faults.lossy_proxy import at_random, lossy_proxy
from object_stores import IMPATIENT, count_as_probed, new_location
from virtbackup_async.catalog.amendment import amend_definition
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine import reading
from virtbackup_async.engine.clean.removal import remove_backup
from virtbackup_async.engine.locks import NO_WAIT
from virtbackup_async.engine.reading import hold_to_read
from virtbackup_async.errors import LockHeldError, NotFoundError, StorageError
from virtbackup_async.model.backup import Definition, Packager
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import is_used
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.objects import lease
from virtbackup_async.repository.storage.objects.connecting import open_object_storage
from virtbackup_async.repository.storage.objects.requests import Connection
from virtbackup_async.repository.storage.objects.storage import ObjectStorage
from virtbackup_async.repository.storage.repository_file import STORAGES, find_in, make_in

NAMES = [f"2026030{number}-021500_3_web" for number in range(1, 5)]
WORKS = 16
AT_ONCE = 4
REFUSED = (LockHeldError, NotFoundError)


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(int(metafunc.config.getoption("--histories"))))


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(reading, "REMOVER_TIMEOUT_S", 0)
    monkeypatch.setattr(lease, "REFRESH_S", 0)


async def nothing():
    """Forget nothing: hosts remember nothing here."""


class History:
    """Four backups, and what happens to them; each actor is a host of its own."""

    def __init__(self, monkeypatch, open_storage, seed):
        self.numbers = random.Random(seed)
        self.open_storage = open_storage
        self.hosts = {}
        monkeypatch.setitem(STORAGES, "test", lambda at: self.hosts[at.path])
        self.hosts["main"] = self.storage = open_storage()
        self.begun = 0
        self.pinned, self.set_keys, self.lost = set(), {name: set() for name in NAMES}, []
        make_in(self.storage)
        self.found = {name: anyio.run(self.store, name) for name in NAMES}

    async def store(self, name):
        file = f"{name}_vda.raw"
        definition = Definition(
            name=name, domain_id=3, domain_name="web", domain_xml="<domain/>",
            disks={"vda": file}, version="1.0.0", date=1772331300, packager=Packager("repository"),
        )  # fmt: skip
        self.storage.put_new(f"web/{file}.map", b"the map")
        path = await Catalog(StorageLocation("test", "main")).write_definition(definition)
        return FoundBackup(definition, path)

    def next_work(self):
        if self.begun == WORKS:
            return None
        self.begun += 1
        kinds = (self.read, self.remove, self.pin, self.keep_result)
        work = self.numbers.choices(kinds, (4, 4, 2, 2))[0]
        # Two of the four are fought over.
        name = self.numbers.choices(NAMES, (4, 4, 1, 1))[0]
        return partial(self.act, work, name, f"host-{self.begun}")

    def act(self, work, name, host, actor: Actor):
        storage = self.open_storage()
        storage.calls = SteppedStorage(storage.calls, actor)
        self.hosts[host] = SteppedStorage(storage, actor)
        target = StorageLocation("test", host)
        found = self.found[name]
        there = FoundBackup(found.definition, Catalog(target).definition_path(found.definition))
        try:
            anyio.run(work, there, Catalog(target), name)
        except BaseException:
            if actor._is_dying:
                raise DiedError from None
            raise

    async def read(self, found, _catalog, name):
        async with hold_to_read(found.definition, found.path.parent):
            for _ in range(3):
                storage = self.hosts[found.path.target.path]
                if not await anyio.to_thread.run_sync(storage.exists, f"web/{name}_vda.raw.map"):
                    self.lost.append(name)

    async def remove(self, found, catalog, _name):
        await remove_backup(catalog, found, NO_WAIT, nothing)

    async def pin(self, found, _catalog, name):
        await amend_definition(found.path, {"pinned": True})
        self.pinned.add(name)

    async def keep_result(self, found, _catalog, name):
        key = f"key_{found.path.target.path}"
        await amend_definition(found.path, {key: 1})
        self.set_keys[name].add(key)

    def play(self, share_of_deaths, may_fail=()):
        for actor in play(self.numbers, self.next_work, AT_ONCE, share_of_deaths):
            if actor.error is not None and not isinstance(actor.error, (*REFUSED, *may_fail)):
                raise actor.error

    def check(self):
        assert self.lost == []
        repository = find_in(self.storage)
        files = [f"web/{name}_vda.raw.map" for name in NAMES]
        assert not is_used(repository, files)
        for name in NAMES:
            files = self.storage.names("web", {Kind.FILE})
            there = {last.removeprefix(name) for last in files if last.startswith(name)}
            told = there & {".json", ".json.removed"}
            assert not there or told, (name, there)
            assert ".json" not in there or "_vda.raw.map" in there, (name, there)
            if name in self.pinned:
                assert ".json" in there, (name, there)
            if ".json" in there:
                self.check_definition(name)

    def check_definition(self, name):
        data = self.storage.read(f"web/{name}.json", 1 << 20)
        assert all(key.encode() in data for key in self.set_keys[name])
        # Whatever removal was begun is ended, or taken back because of the pin.
        note = self.found[name].path.with_name(f"{name}.json.removed")
        if self.storage.exists(note.stored_name):
            found = FoundBackup(self.found[name].definition, note)
            anyio.run(remove_backup, Catalog(note.target), found, NO_WAIT, nothing)
            assert not self.storage.exists(note.stored_name)
            is_pinned = name in self.pinned or b'"pinned": true' in data
            assert self.storage.exists(f"web/{name}.json") == is_pinned


def in_memory():
    store = obstore.store.MemoryStore()
    location = StorageLocation("s3", "memory/reading")

    def open_one():
        storage = ObjectStorage(location, Connection(lambda _most, _step: store), IMPATIENT)
        count_as_probed(storage)
        return storage

    return open_one


def test_all_of_it_in_memory(monkeypatch, seed):
    history = History(monkeypatch, in_memory(), seed)
    history.play(share_of_deaths=0.01 * (seed % 3))
    history.check()


def test_all_of_it_in_a_store_whose_answers_are_lost(object_server, monkeypatch, seed):
    direct = new_location(object_server.endpoint)
    with lossy_proxy(object_server.endpoint) as proxy:
        lossy = StorageLocation("s3", direct.path, endpoint=proxy.endpoint)

        def open_one():
            storage = open_object_storage(lossy, IMPATIENT)
            count_as_probed(storage)
            return storage

        history = History(monkeypatch, open_one, seed)
        proxy.plan = at_random(seed, share=0.05)
        history.play(share_of_deaths=0.01 * (seed % 3), may_fail=(StorageError,))
        proxy.plan = lambda _method, _path: None
        history.check()
