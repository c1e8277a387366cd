"""engine/reading.py: what is read stays, wherever a package cannot be locked."""

import logging

import pytest

from fakes.failing_storage import FailingStorage
from fakes.other_site import IMAGE, KINDS, other_site, restored
from virtbackup_async.engine.clean.forget import ForgetRequest, run_forget
from virtbackup_async.engine.copy.selection import CopyRequest
from virtbackup_async.engine.copy.session import run_copy
from virtbackup_async.engine.reading import hold_all, hold_to_read
from virtbackup_async.errors import NotFoundError, StorageError
from virtbackup_async.events import CopyStarted, VerifyStarted
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import (
    find_repository,
    is_used,
    make_repository,
    take_package_lease,
)
from virtbackup_async.repository.storage import package_leases
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.layout import LEASES
from virtbackup_async.repository.storage.repository_file import STORAGES


@pytest.fixture(params=[*KINDS, "encrypted"])
def site(request, tmp_path, monkeypatch):
    return other_site(request, tmp_path, monkeypatch)


of_buckets = pytest.mark.parametrize("site", KINDS, indirect=True)


async def found_in(site):
    return (await site.scan()).complete


async def forget(site, found):
    name = f"fake@{found.definition.name}"
    run = await run_forget(site.runtime(), ForgetRequest([name], allow_newest=True))
    assert len(run.removed) + len(run.not_removed) == 1
    return run


def leases(site):
    names = site.storage.names(LEASES, {Kind.FILE})
    return [name for name in names if not name.startswith(".")]


async def test_a_backup_that_is_read_stays_and_goes_afterwards(site):
    await site.back_up()
    (found,) = await found_in(site)
    async with hold_to_read(found.definition, found.path.parent):
        (refused,) = (await forget(site, found)).not_removed
        assert refused.in_use
        assert refused.error.startswith("another process reads or removes ")
        # Nothing shows that there was an attempt.
        assert await found_in(site) == (found,)
    assert len((await forget(site, found)).removed) == 1
    assert (site.names(), leases(site)) == ([], [])


async def test_only_what_is_read_stays(site):
    for _ in range(2):
        await site.back_up()
    first, second = await found_in(site)
    async with hold_to_read(first.definition, first.path.parent):
        assert len((await forget(site, second)).removed) == 1
        assert len((await forget(site, first)).not_removed) == 1


async def test_many_packages_are_held_by_one_lease(site):
    for _ in range(3):
        await site.back_up()
    first, second, third = await found_in(site)
    async with hold_all([first, second]):
        assert len(leases(site)) == 1
        for found in (first, second):
            async with hold_to_read(found.definition, found.path.parent):
                assert len(leases(site)) == 1
            assert len((await forget(site, found)).not_removed) == 1
        assert len((await forget(site, third)).removed) == 1
    assert leases(site) == []


async def test_a_backup_that_is_gone_is_not_read(site):
    await site.back_up()
    (found,) = await found_in(site)
    await forget(site, found)
    with pytest.raises(NotFoundError, match="removed in the meantime"):
        async with hold_to_read(found.definition, found.path.parent):
            pass
    assert leases(site) == []


@of_buckets
async def test_who_may_only_read_reads_without_a_lease(site, tmp_path, monkeypatch, caplog):
    await site.back_up()
    caplog.set_level(logging.WARNING)

    def refuse(verb):
        raise StorageError(f"the store denies access: {verb}")

    failing = FailingStorage(site.storage, before=refuse)
    monkeypatch.setitem(STORAGES, "test", lambda _at: failing)
    assert await restored(site, tmp_path / "restored") == IMAGE
    assert "a removal may disturb this: the store denies access: take_lease" in caplog.text


@pytest.mark.parametrize("command", ["verify", "copy"])
async def test_commands_hold_what_they_read_by_one_lease(site, tmp_path, command):
    for _ in range(2):
        await site.back_up()
    backups = await found_in(site)
    repository = find_repository(site.target_place)
    names = [f"{site.place}/{one.definition.name}_vda.raw.map" for one in backups]
    seen = []

    def look():
        seen.append((len(leases(site)), [is_used(repository, [name]) for name in names]))

    kind = {"verify": VerifyStarted, "copy": CopyStarted}[command]
    runtime = site.runtime()
    site.on = {lambda event: isinstance(event, kind): look}
    if command == "verify":
        await site.verify()
    else:
        (tmp_path / "there").mkdir()
        await run_copy(runtime, CopyRequest(str(tmp_path / "there"), packager="directory"))
    assert seen == [(1, [True, True])]
    assert leases(site) == []


# Leases.


@pytest.fixture
def repository(tmp_path):
    return make_repository(StorageLocation.of(tmp_path))


def test_a_lease_holds_its_packages_and_no_others(repository):
    lease = take_package_lease(repository, ["web/a.map", "web/b.map"])
    assert is_used(repository, ["web/b.map"])
    assert is_used(repository, ["web/other.map", "web/a.map"])
    assert not is_used(repository, ["web/c.map"])
    assert not is_used(repository, ["web/a.map"], lease)
    lease.close()
    assert not is_used(repository, ["web/a.map"])


def test_a_lease_on_more_than_it_can_name_holds_all(repository):
    lease = take_package_lease(
        repository, [f"web/{number}.map" for number in range(package_leases.MAX_MARKS + 1)]
    )
    assert is_used(repository, ["web/other.map"])
    lease.close()
    most = take_package_lease(
        repository, [f"web/{number}.map" for number in range(package_leases.MAX_MARKS)]
    )
    assert not is_used(repository, ["web/other.map"])
    assert is_used(repository, ["web/0.map"])
    most.close()
