"""`clean` and `doctor` in a bucket with Object Lock."""

import pytest

from fakes.other_site import OtherSite
from locked_bucket import LOCKED_DAYS, locked_place
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.object_lock import locked_until
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.doctor.object_lock import check_object_lock
from virtbackup_async.errors import StorageError
from virtbackup_async.events import LocksExtended, RemovalFailed
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import open_storage
from virtbackup_async.repository.storage.objects import opened_locks
from virtbackup_async.repository.storage.objects.opened_locks import open_locks

DAY_S = 86400


class LockedSite(OtherSite):
    """A host whose target is in a bucket that locks each new object."""

    def __init__(self, root, place):
        super().__init__(root, open_storage(place))
        self.target_place = place

    async def clean(self, **request):
        await run_clean(self.runtime(), CleanRequest(**request))

    async def findings(self, *, keeps=True):
        found = await check_object_lock(self.runtime().host, self.target_place, keeps=keeps)
        return [(finding.code, str(finding.level)) for finding in found]

    def until(self, name):
        found = open_locks(self.target_place).of_object(name)
        return found.until_s if found else None


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(tmp_path / "state"))


@pytest.fixture
def site(tmp_path, object_server, state):
    return LockedSite(tmp_path, locked_place(object_server))


async def test_clean_extends_the_locks_of_what_is_needed_when_it_is_time(site, monkeypatch):
    await site.back_up()
    await site.clean()
    (first,) = site.of(LocksExtended)
    assert first.objects == 0  # all were locked for a week a moment ago
    await site.clean()
    assert not site.of(LocksExtended)

    monkeypatch.setattr(opened_locks, "_PATIENCE_SHARE", 0.0)
    await site.clean()
    (extended,) = site.of(LocksExtended)
    needed = [name for name, _ in site.storage.calls.list_below("") if "/leases/" not in name]
    kinds = ("/packs/", "/index/", "/repository", ".json", ".map")
    assert all(any(kind in name for name in needed) for kind in kinds)
    assert extended.objects >= len(needed)
    now_s = site.storage.clock(".virtbackup-repository/leases")
    for name in needed:
        assert site.until(name) == pytest.approx(now_s + LOCKED_DAYS * DAY_S, abs=120)
    noted_s = locked_until(site.runtime().host, site.target_place)
    assert noted_s == pytest.approx(now_s + LOCKED_DAYS * DAY_S, abs=120)


async def test_a_dry_run_and_a_host_that_may_only_add_extend_nothing(site, monkeypatch):
    monkeypatch.setattr(opened_locks, "_PATIENCE_SHARE", 0.0)
    await site.back_up()
    await site.clean(dry_run=True)
    assert not site.of(LocksExtended)
    site.group |= {"append_only": True}
    await site.clean()
    assert not site.of(LocksExtended)


async def test_removals_are_no_failures(site):
    await site.back_up()
    site.image.write_bytes(b"x" * 300_000)
    await site.back_up()
    site.group |= {"keep_last": 1, "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0, "yearly": 0}
    await site.clean()
    assert not site.of(RemovalFailed)
    assert len((await site.scan()).complete) == 1


async def test_doctor_says_what_is_locked_and_whether_locks_are_extended(site, monkeypatch):
    await site.back_up()
    assert await site.findings(keeps=False) == [("object_lock", "ok")]
    assert await site.findings() == [
        ("object_lock", "ok"),
        ("object_lock_not_extended", "warning"),
    ]
    await site.clean()
    assert await site.findings() == [("object_lock", "ok")]
    monkeypatch.setattr(
        "virtbackup_async.engine.doctor.object_lock.locked_until", lambda *_: 1_700_000_000.0
    )
    assert (await site.findings())[1] == ("object_lock_not_extended", "warning")


async def test_a_lock_without_a_retention_protects_nothing(tmp_path, object_server, state):
    site = LockedSite(tmp_path, locked_place(object_server, retention=False))
    assert await site.findings() == [("object_lock_unused", "warning")]
    await site.back_up()
    await site.clean()
    assert not site.of(LocksExtended)


async def test_a_store_that_does_not_tell_is_no_failure_of_clean(site, monkeypatch):
    def refuse(_location):
        raise StorageError("the store denies access")

    await site.back_up()
    monkeypatch.setattr(opened_locks, "lock_of_bucket", refuse)
    await site.clean()
    assert not site.of(LocksExtended)
    assert site.warnings() == ["no lock is extended, if there are any: the store denies access"]
    assert await site.findings() == [("object_lock_unknown", "info")]


async def test_elsewhere_nothing_is_said(tmp_path, state):
    site = OtherSite(tmp_path, open_storage(StorageLocation.of(tmp_path)))
    place = StorageLocation.of(tmp_path)
    assert await check_object_lock(site.runtime().host, place, keeps=True) == []
