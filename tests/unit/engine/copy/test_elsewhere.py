"""Copies into, out of and between targets that are no plain directory: objects, encrypted ones."""

from dataclasses import replace

import pytest

from fakes.copy_site import CopySite
from fakes.memory_storage import MemoryStorage
from fakes.site import DAY_S, NOW
from fakes.stored_backup import DATE
from object_stores import memory_object_storage
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.copy.definition import copy_pending, plan_copy
from virtbackup_async.engine.copy.destination import Destination
from virtbackup_async.engine.doctor.target import check_copies
from virtbackup_async.engine.host_state import open_catalog
from virtbackup_async.errors import ConfigError
from virtbackup_async.events import PendingUndone
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.storage_location import LOCAL, StorageLocation
from virtbackup_async.repository import make_repository
from virtbackup_async.repository.storage.repository_file import STORAGES

KINDS = ("memory", "objects", "encrypted")
REPOSITORY = Packager("repository")


class AwaySite(CopySite):
    """A host with a local target, and one elsewhere, which is the target of the group ``away``."""

    def __init__(self, root, place):
        super().__init__(root)
        self.place = place

    def configure(self, **groups):
        group = {"hosts": ["r:.*"], **self.group}
        away = {"hosts": ["r:.*"], "target": "/replaced", "packager": "repository"}
        config = super().configure(**(groups or {"all": group, "away": away}))
        moved = replace(config.groups["away"], target=self.place)
        return replace(config, groups={**config.groups, "away": moved})

    @property
    def away(self):
        return open_catalog(self.configure(), self.place)

    async def names_away(self):
        return [found.definition.name for found in (await self.away.scan()).complete]


@pytest.fixture(params=KINDS)
def site(request, tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(tmp_path / "state"))
    place = StorageLocation("test", "one")
    if request.param == "encrypted":
        (tmp_path / "sealed").mkdir()
        place = StorageLocation(LOCAL, str(tmp_path / "sealed"), key_file=tmp_path / "key")
        make_repository(place)
    else:
        kinds = {"memory": MemoryStorage, "objects": memory_object_storage}
        storage = kinds[request.param]()
        monkeypatch.setitem(STORAGES, "test", lambda _at: storage)
    return AwaySite(tmp_path, place)


@pytest.mark.parametrize("packager", [Packager("directory"), REPOSITORY], ids=["files", "chunks"])
async def test_backups_go_there_and_come_back(site, packager):
    stored = [await site.store(packager, date=DATE + day * DAY_S) for day in range(2)]
    run = await site.copy(to="away", groups=("all",))
    assert [one.backup for one in run.done] == [one.name for one in stored]
    assert await site.names_away() == [one.name for one in stored]
    again = await site.copy(to="away", groups=("all",))
    assert (len(again.skipped), again.done) == (2, ())
    back = await site.copy(groups=("away",), packager="directory")
    assert [one.backup for one in back.done] == [one.name for one in stored]
    image = (site.root / "image.raw").read_bytes()
    for one in stored:
        assert await site.content(site.copied(one)) == image
        assert site.copied(one).copied_from.target == str(site.target)
    assert not list((site.root / "state").rglob("*.pending"))


async def test_only_what_is_missing_there_is_read(site):
    await site.store(REPOSITORY)
    await site.copy(to="away", groups=("all",))
    await site.store(REPOSITORY, date=DATE + DAY_S)
    (done,) = (await site.copy(to="away", groups=("all",))).done
    assert (done.read_bytes, done.skipped_bytes) == (0, done.data_bytes)


async def test_a_path_or_url_of_a_group_means_its_target(site):
    stored = await site.store()
    run = await site.copy(to=str(site.place), groups=("all",))
    assert [one.backup for one in run.done] == [stored.name]
    assert await site.names_away() == [stored.name]


async def test_it_is_no_place_for_files(site):
    await site.store()
    with pytest.raises(ConfigError, match="need a directory"):
        await site.copy(to="away", groups=("all",), packager="tar")


@pytest.mark.parametrize("by", ["copy", "clean"])
async def test_a_killed_copy_is_undone(site, by):
    stored = await site.store()
    catalog = site.away
    pending = copy_pending(plan_copy(stored.definition), Destination(catalog, REPOSITORY), "/s")
    path = await catalog.create_pending(pending)
    assert path.local.exists()
    if by == "copy":
        run = await site.copy(to="away", groups=("all",))
        assert [one.backup for one in run.done] == [stored.name]
    else:
        request = CleanRequest(("away",))
        await run_clean(site.runtime(now=lambda: NOW), request)
        assert [event.backup for event in site.of(PendingUndone)] == [stored.name]
    assert not path.local.exists()


async def test_copies_in_the_clear_are_warned_of(site):
    await site.store()
    await site.copy(to="away", groups=("all",))
    assert site.warnings() == []
    await site.copy(groups=("away",))
    is_sealed = site.place.is_encrypted
    warning = f"{site.place} is encrypted, and the copies in {site.other} are not"
    assert site.warnings() == [warning] * is_sealed
    finding = await check_copies(site.place, StorageLocation.of(site.other))
    assert ("copies_in_clear" in {one.code for one in finding}) == is_sealed
