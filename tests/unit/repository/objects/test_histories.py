"""Many hosts' writers, readers and prunes in one object store at once, and their deaths.

Whatever the order of their steps, every backup that was completed and not removed is read back.
``--histories N`` plays N of each kind.
"""

import random
from contextlib import closing, suppress

import obstore.store
import pytest

from fakes.stepped_storage import SteppedStorage, play
from fakes.stored_images import chunk, prune_images, read_image, store_image
from faults.lossy_proxy import at_random, lossy_proxy
from object_stores import IMPATIENT, count_as_probed, new_location
from virtbackup_async.errors import LockHeldError, StorageError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.data import chunk_writer
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.index.segments import open_index
from virtbackup_async.repository.prune import prune as pruning
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.layout import list_packs
from virtbackup_async.repository.storage.leases import living_holders
from virtbackup_async.repository.storage.objects import cache, lease
from virtbackup_async.repository.storage.objects.connecting import open_object_storage
from virtbackup_async.repository.storage.objects.requests import Connection
from virtbackup_async.repository.storage.objects.storage import ObjectStorage
from virtbackup_async.repository.storage.repository_file import find_in, make_in

pytestmark = pytest.mark.timeout(300)

CHUNKS = range(1, 13)
WORKS = 14
AT_ONCE = 4


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(int(metafunc.config.getoption("--histories"))))


@pytest.fixture(autouse=True)
def small_files(monkeypatch, tmp_path):
    """Packs of a few chunks, segments that are merged at once, and refreshes at each step."""
    monkeypatch.setattr(pack_format, "PACK_BYTES", 700)
    monkeypatch.setattr(pruning, "MAX_SEGMENTS", 2)
    monkeypatch.setattr(chunk_writer, "MERGED_AT_ONCE", 2)
    monkeypatch.setattr(chunk_writer, "CHUNKS_A_SEGMENT", 3)
    monkeypatch.setattr(lease, "REFRESH_S", 0)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))


class History:
    """A repository, the backups in it that are complete, and what happens to them."""

    def __init__(self, open_storage, seed, key_file=None):
        self.numbers = random.Random(seed)
        self.open_storage = open_storage
        self.key_file = key_file
        self.listed = {}
        self.begun = 0
        self.reading = set()
        make_in(self.storage(), key_file)

    def storage(self):
        storage = self.open_storage()
        count_as_probed(storage)
        return storage

    def next_work(self):
        if self.begun == WORKS:
            return None
        self.begun += 1
        work = self.numbers.choices(
            (self.back_up, self.prune, self.forget, self.read), (6, 4, 2, 2)
        )[0]
        name = f"{self.begun:03}"
        chunks = self.numbers.choices(CHUNKS, k=self.numbers.randint(1, 6))
        return lambda actor: work(SteppedStorage(self.storage(), actor), name, chunks)

    def back_up(self, storage, name, chunks):
        store_image(storage, name, chunks, self.key_file)
        self.listed[name] = chunks

    def prune(self, storage, _name="", _chunks=()):
        with suppress(LockHeldError):
            prune_images(storage, self.key_file)

    def forget(self, storage, _name="", _chunks=()):
        names = sorted(self.listed.keys() - self.reading)
        if names:
            name = self.numbers.choice(names)
            del self.listed[name]
            self.clear(storage).remove(f"web/{name}.map")

    def clear(self, storage):
        """The storage with the names and files as they were before they were sealed."""
        return find_in(storage, self.key_file).storage

    def read(self, storage, _name="", _chunks=()):
        names = sorted(self.listed)
        if names:
            name = self.numbers.choice(names)
            self.reading.add(name)
            assert read_image(storage, name, self.key_file) == self.expected(name)

    def expected(self, name):
        return [chunk(number) for number in self.listed[name]]

    def play(self, share_of_deaths, may_fail=()):
        for actor in play(self.numbers, self.next_work, AT_ONCE, share_of_deaths):
            if actor.error is not None and not isinstance(actor.error, may_fail):
                raise actor.error

    def check(self):
        storage = self.storage()
        for name in self.listed:
            assert read_image(storage, name, self.key_file) == self.expected(name)

    def check_after_prunes(self):
        """All that was completed is there, and no unknown pack; all can be written again."""
        storage = self.storage()
        self.check()
        clear = self.clear(storage)
        for name in clear.names("web", {Kind.FILE}):
            if name.removesuffix(".map") not in self.listed:
                clear.remove(f"web/{name}")
        for _ in range(2):
            self.prune(storage)
            self.check()
        assert living_holders(storage) == frozenset()
        with closing(open_index(find_in(storage, self.key_file))) as index:
            indexed = {pack for segment in index.segments for pack in segment.packs}
        assert set(list_packs(storage)) == indexed
        self.back_up(storage, "last", list(CHUNKS))
        self.check()


def in_memory():
    store = obstore.store.MemoryStore()
    location = StorageLocation("s3", "memory/histories")
    return lambda: ObjectStorage(location, Connection(lambda _most, _step: store), IMPATIENT)


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["clear", "encrypted"])
def test_no_backup_is_lost_in_memory(seed, is_encrypted, tmp_path):
    history = History(in_memory(), seed, tmp_path / "key" if is_encrypted else None)
    history.play(share_of_deaths=0.004 * (seed % 3))
    history.check_after_prunes()


def test_no_backup_is_lost_in_a_store_whose_answers_are_lost(object_server, seed):
    direct = new_location(object_server.endpoint)
    with lossy_proxy(object_server.endpoint) as proxy:
        lossy = new_location(proxy.endpoint)
        lossy = StorageLocation("s3", direct.path, endpoint=lossy.endpoint)
        proxy.plan = at_random(seed, share=0.05)
        history = History(lambda: open_object_storage(lossy, IMPATIENT), seed)
        history.play(share_of_deaths=0.004 * (seed % 3), may_fail=(StorageError, LockHeldError))
        proxy.plan = lambda _method, _path: None
        history.check_after_prunes()
