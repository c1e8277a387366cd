"""Random histories of two repositories: backups, copies and cleans, killed at any moment or not.

Nobody may lose a chunk: after each step, all that either target lists is verified, each copy is its
backup, and at the end one copy completes the other target.
"""

import random
from datetime import timedelta
from functools import partial

import anyio
import pytest

from fakes.copy_site import CopySite
from fakes.site import DAY_S, NOW
from fakes.small_repository import PACKAGER, content
from fakes.stored_backup import DATE
from fakes.sudden_death import killed_before
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.model.storage_location import StorageLocation

STEPS = 14
NEVER = 1 << 30
RULES = ("hourly", "daily", "weekly", "monthly", "yearly")


class WalkSite(CopySite):
    """Two targets with repositories; each keeps its newest backups."""

    def configure(self, **groups):
        common = {"hosts": ["r:.*"], "packager": "repository", **dict.fromkeys(RULES, 0)}
        away = {**common, "target": str(self.other), "keep_last": 2}
        return super().configure(**(groups or {"all": {**common, "keep_last": 3}, "away": away}))

    async def add(self, day, chunks):
        image = self.root / f"{day}.raw"
        image.write_bytes(content(chunks))
        await self.store(PACKAGER, date=DATE + day * DAY_S, image=image.name)

    async def clean(self, group):
        later = NOW + timedelta(days=90)
        await run_clean(self.runtime(now=lambda: later), CleanRequest((group,)))

    async def names(self, target):
        scan = await Catalog(StorageLocation.of(target)).scan()
        return {found.definition.name for found in scan.complete}


def step(walk, days):
    """Return what to do next, and whether it is a backup."""
    what = walk.choice(["add", "add", "copy", "copy", "copy", "clean all", "clean away"])
    if what == "add":
        chunks = [walk.randrange(12) for _ in range(walk.randrange(1, 20))]
        return partial(WalkSite.add, day=days, chunks=chunks)
    if what == "copy":
        return partial(WalkSite.copy, groups=("all",), new=walk.random() < 0.3)
    return partial(WalkSite.clean, group=what.split()[1])


async def assert_whole(root):
    site = WalkSite(root)
    listed = [*await site.names(site.target), *await site.names(site.other)]
    if listed:
        assert await site.verify() == sorted(listed)


async def complete(root):
    site = WalkSite(root)
    await site.add(90, [1, 2, 3])
    await site.clean("away")  # a removal that was killed there is in the way of a new copy
    run = await site.copy(groups=("all",))
    assert not run.failed
    assert await site.names(site.target) <= await site.names(site.other)
    for found in (await Catalog(StorageLocation.of(site.other)).scan()).complete:
        name = next(image for image in (root).glob("*.raw") if is_of(found.definition, image))
        assert await site.content(found.definition) == name.read_bytes()


def is_of(definition, image):
    return definition.date == DATE + int(image.stem) * DAY_S


async def run_step(root, work):
    await work(WalkSite(root))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost(memory, seed):
    walk = random.Random(seed)
    root = memory / "walk"
    WalkSite(root)
    anyio.run(run_step, root, partial(WalkSite.add, day=0, chunks=[1, 2, 3, 0, 4]))
    for number in range(1, STEPS):
        work = step(walk, number)
        death = walk.randrange(60) if walk.random() < 0.5 else NEVER
        killed_before(death, partial(anyio.run, run_step, root, work))
        anyio.run(assert_whole, root)
    anyio.run(complete, root)
