"""served/quota.py: a target grows to a limit, as to the end of its disk."""

import os
from contextlib import closing

import pytest

from fakes.memory_storage import MemoryStorage
from store_servers import served
from virtbackup_async.errors import StorageFullError
from virtbackup_async.repository.storage import layout
from virtbackup_async.repository.storage.leases import take_prune_lease
from virtbackup_async.repository.storage.local import LocalStorage
from virtbackup_async.repository.storage.served.quota import (
    BLOCK_BYTES,
    QuotaStorage,
    measure_directory,
)


class Target:
    """A storage with a quota, and how often it was measured."""

    def __init__(self, limit_bytes, inner=None):
        self.inner = inner or MemoryStorage()
        self.measured = 0
        self.now_s = 0.0
        self.storage = QuotaStorage(self.inner, limit_bytes, self._measure, lambda: self.now_s)
        self.inner.make_directory("d")

    def _measure(self):
        self.measured += 1
        return sum(max(len(each.data), BLOCK_BYTES) for each in self.inner.files.values())


def fill(file, length_bytes):
    for _ in range(length_bytes // 1000 + 1):
        file.append(b"x" * 1000)
    file.finish()


WRITES = {
    "put_new": lambda s: s.put_new("d/a", b"x" * 20_000),
    "replace": lambda s: s.replace("d/a", b"x" * 20_000),
    "create": lambda s: fill(s.create("d/a"), 20_000),
    "create_hidden": lambda s: fill(s.create_hidden("d/a"), 20_000),
    "many files": lambda s: [s.put_new(f"d/{number}", b"") for number in range(10)],
    "many directories": lambda s: [s.make_directory(f"d/{number}") for number in range(10)],
    "leases": lambda s: [s.take_lease(f"d/{number}", b"", ()) for number in range(10)],
}


@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("is_served", [True, False])
def test_what_exceeds_the_quota_is_refused_as_by_a_full_disk(what, is_served):
    target = Target(16_384)
    storage = served(target.storage) if is_served else target.storage
    with pytest.raises(StorageFullError, match="quota of 16") as error:
        WRITES[what](storage)
    assert "raise the quota" in error.value.hint
    if is_served:
        storage.link.close()
    assert sum(len(each.data) for each in target.inner.files.values()) <= 16_384


def test_what_is_removed_makes_room():
    target = Target(10_000)
    target.storage.put_new("d/a", b"x" * 8000)
    with pytest.raises(StorageFullError):
        target.storage.put_new("d/b", b"x" * 8000)
    target.storage.remove("d/a")
    target.storage.put_new("d/b", b"x" * 8000)
    target.storage.remove("d/b")
    target.storage.create_hidden("d/c").discard()


def test_what_others_removed_is_noticed_a_minute_later():
    target = Target(10_000)
    target.storage.put_new("d/a", b"x" * 8000)
    target.inner.remove("d/a")
    with pytest.raises(StorageFullError):
        target.storage.put_new("d/b", b"x" * 8000)
    target.now_s += 61
    target.storage.put_new("d/b", b"x" * 8000)


def test_refusals_do_not_keep_the_disk_busy():
    target = Target(10_000)
    for _ in range(100):
        with pytest.raises(StorageFullError):
            target.storage.put_new("d/a", b"x" * 20_000)
    assert target.measured == 1


def test_files_that_were_there_count():
    target = Target(10_000)
    target.inner.put_new("d/old", b"x" * 8000)
    with pytest.raises(StorageFullError):
        target.storage.put_new("d/a", b"x" * 8000)
    assert target.storage.free_bytes() == 2000


def test_free_space_is_the_lesser_of_both():
    assert Target(10_000).storage.free_bytes() == 10_000
    assert Target(10_000, MemoryStorage(room_bytes=500)).storage.free_bytes() == 500


def test_a_directory_is_measured_without_following_links(tmp_path):
    target = tmp_path / "target"
    (target / "d").mkdir(parents=True)
    (target / "d" / "a").write_bytes(b"x" * 5000)
    (target / "d" / "empty").touch()
    (tmp_path / "big").write_bytes(b"x" * 100_000)
    (target / "link").symlink_to(tmp_path / "big")
    (target / "up").symlink_to(tmp_path)
    os.mkfifo(target / "pipe")
    blocks = {"d": 1, "d/a": 2, "d/empty": 1, "link": 1, "up": 1, "pipe": 1}
    assert measure_directory(target) == sum(blocks.values()) * BLOCK_BYTES


def test_a_full_quota_can_be_cleaned(tmp_path):
    """The reserve counts, so removing it makes room for the sweep's lease."""
    inner = LocalStorage(tmp_path, layout.DIRECTORY)
    for name in (layout.DIRECTORY, layout.LEASES, layout.PACKS, layout.INDEX):
        inner.make_directory(name)
    inner.keep_reserve()
    limit = measure_directory(tmp_path)
    storage = served(QuotaStorage(inner, limit, lambda: measure_directory(tmp_path)))
    with closing(storage.link):
        with pytest.raises(StorageFullError):
            storage.put_new("a", b"x")
        lease = take_prune_lease(storage)
        lease.check()
        lease.close()
