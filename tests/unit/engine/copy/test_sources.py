"""Copies of what virt-backup wrote, and of a source that changes while it is read."""

import shutil
from pathlib import Path

import pytest
from anyio import Event, create_task_group

from fakes.copy_site import CopySite
from fakes.site import DAY_S, NOW
from fakes.stored_backup import DATE
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.events import BackupRemoved, CopyStarted, RemovalFailed
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.storage_location import StorageLocation

OLD = Path(__file__).parents[3] / "compat/data/0.5.6"


@pytest.fixture
def site(tmp_path):
    return CopySite(tmp_path)


@pytest.mark.parametrize("packager", ["directory", "tar", "zstd", "repository"])
async def test_what_virt_backup_wrote_is_copied(site, packager):
    shutil.copytree(OLD / "target", site.target, dirs_exist_ok=True)
    run = await site.copy(packager=packager)
    assert run.ok
    sources = {
        one.definition.name: one
        for one in (await Catalog(StorageLocation.of(site.target)).scan()).complete
    }
    assert {one.backup for one in run.done} == set(sources)
    assert sorted(await site.listed()) == sorted(sources)
    for found in (await Catalog(StorageLocation.of(site.other)).scan()).complete:
        definition = found.definition
        was = sources[definition.name].definition
        assert await site.content(definition) == (OLD / "vda.raw").read_bytes()
        image = definition.records["vda"].image
        assert (image.format, image.size_bytes) == ("raw", (OLD / "vda.raw").stat().st_size)
        assert image.source
        assert (definition.date, definition.domain_xml) == (was.date, was.domain_xml)
    again = await site.copy(packager=packager)
    assert len(again.skipped) == len(sources)


async def test_a_backup_that_is_removed_meanwhile_is_skipped(site):
    first = await site.store()
    second = await site.store(date=DATE + DAY_S)

    def remove():
        for path in first.directory.glob(f"{first.name}*"):
            path.unlink()

    site.on[lambda event: isinstance(event, CopyStarted)] = remove
    run = await site.copy()
    assert [(one.backup, one.reason) for one in run.skipped] == [
        (first.name, "it was removed meanwhile")
    ]
    assert [one.backup for one in run.done] == [second.name]


@pytest.mark.parametrize("packager", ["directory", "repository"])
async def test_clean_at_both_ends_meanwhile_hurts_nothing(site, packager):
    """Both targets are cleaned by others while the first copy is made, and keep one backup each."""
    stored = [await site.store(Packager(packager), date=DATE + day * DAY_S) for day in range(3)]
    config = site.configure(
        all={"hosts": ["r:.*"], "packager": packager, "keep_last": 1, **dict.fromkeys(RULES, 0)},
        away={
            "target": str(site.other), "packager": packager, "hosts": ["r:.*"], "keep_last": 1,
            **dict.fromkeys(RULES, 0),
        },
    )  # fmt: skip
    cleaned = []

    async def clean():
        runtime = CopySite(site.root).runtime(config, now=lambda: NOW)
        await run_clean(runtime, CleanRequest())
        cleaned.append(True)

    run = await interleaved(site, config, clean)
    assert cleaned
    assert not run.failed
    listed = await site.listed()
    assert stored[-1].name in listed
    for name in listed:
        one = next(one for one in stored if one.name == name)
        assert await site.content(site.copied(one)) == (site.root / "image.raw").read_bytes()
    assert not site.of(RemovalFailed)
    assert not site.of(BackupRemoved)


RULES = ("hourly", "daily", "weekly", "monthly", "yearly")


async def interleaved(site, config, clean):
    """Copy, and clean as soon as the first copy has begun."""
    begun = Event()
    site.on[lambda event: isinstance(event, CopyStarted)] = begun.set
    runs = []

    async def copy():
        runs.append(await site.copy(config=config, groups=("all",)))

    async with create_task_group() as tasks:
        tasks.start_soon(copy)
        await begun.wait()
        await clean()
    return runs[0]
