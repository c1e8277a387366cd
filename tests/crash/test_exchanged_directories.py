"""A directory of a target is exchanged at any step of a run: that is noticed, and does no harm."""

import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest

from fakes.exchanges import before_call, put_another_there, put_link_there
from fakes.full_site import FullSite
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.events import BackupDone, VerifyDone
from virtbackup_async.model.storage_location import StorageLocation

REPOSITORY = ".virtbackup-repository"
PLACES = [
    "repository",
    REPOSITORY,
    *(f"{REPOSITORY}/{name}" for name in ("packs", "index", "leases")),
]
# Of the file operations of a run, so many are left out where not all are tried.
STRIDE = 23


@pytest.fixture(scope="module")
async def filled():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        site = FullSite(Path(directory) / "site")
        await site.fill()
        yield site


@pytest.mark.parametrize("exchange", [put_link_there, put_another_there])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", ["backup repository", "clean", "repair"])
async def test_an_exchange_at_any_step(filled, memory, request, command, place, exchange):
    stride = 1 if request.config.getoption("--all-points", default=False) else STRIDE
    await try_all(filled, memory, command, place, exchange, 1 + PLACES.index(place), stride)


@pytest.mark.parametrize("packager", ["directory", "tar", "zstd"])
@pytest.mark.parametrize("exchange", [put_link_there, put_another_there])
async def test_the_directory_of_a_domain_is_exchanged(filled, memory, request, packager, exchange):
    stride = 1 if request.config.getoption("--all-points", default=False) else 4
    await try_all(filled, memory, f"backup {packager}", packager, exchange, 1, stride)


async def try_all(filled, memory, command, place, exchange, first, stride):
    """Run a command once for each of its steps, from a number on; it ends behind the last one."""
    number = first
    while True:
        site = filled.copy_to(memory / "site")
        before = site.seen_outside()
        act = partial(exchange, site.target / place, site.outside / place, site.root / "aside")
        with before_call(number, act) as counted:
            await site.run(command)
        assert site.seen_outside() == before, number
        if counted.calls < number:
            break
        for done in [event for event in site.events if isinstance(event, BackupDone)]:
            is_there = await is_whole(site, done.backup)
            assert is_there or await is_whole(put_back(site, place), done.backup), number
        shutil.rmtree(memory / "site")
        number += stride
    shutil.rmtree(memory / "site")
    assert number > 3 * stride


async def is_whole(site: FullSite, backup: str) -> bool:
    """Tell whether a backup that was said to be made is listed, and good."""
    site.failures.clear()
    await site.run("verify")
    scan = await Catalog(StorageLocation.of(site.target)).scan()
    is_listed = backup in {found.definition.name for found in scan.complete}
    is_good = any(isinstance(e, VerifyDone) and e.backup == backup for e in site.events)
    return is_listed and is_good


def put_back(site: FullSite, place: str) -> FullSite:
    """Bring the directory back that was exchanged."""
    path = site.target / place
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)
    (site.root / "aside").rename(path)
    return site
