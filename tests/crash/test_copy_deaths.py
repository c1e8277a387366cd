"""Killed at every file operation of a copy: nothing half is listed, and the next copy completes it.

So it is where the target is full. The source stays as it was.
"""

import os
import shutil
import subprocess
from functools import partial
from itertools import count

import anyio
import pytest

from fakes.copy_site import CopySite
from fakes.site import DAY_S, DIRECTORY
from fakes.small_repository import PACKAGER
from fakes.stored_backup import DATE, MIB
from fakes.sudden_death import killed_before
from virtbackup_async.events import CopyFailed


@pytest.mark.timeout(300)
@pytest.mark.parametrize("destination", ["directory", "repository"])
@pytest.mark.parametrize("source", [DIRECTORY, PACKAGER], ids=["files", "repository"])
def test_whatever_dies_the_next_copy_ends_it(memory, source, destination):
    begun = CopySite(memory / "begun")
    stored = anyio.run(store_two, begun, source)
    for deaths in count():
        shutil.rmtree(memory / "now", ignore_errors=True)
        shutil.copytree(begun.root, memory / "now")
        work = partial(anyio.run, copy_apart, memory / "now", destination)
        if not killed_before(deaths, work):
            break
        anyio.run(assert_ended, memory / "now", stored, destination)
    assert deaths > 10


async def store_two(site, packager):
    return [await site.store(packager, date=DATE + day * DAY_S) for day in range(2)]


async def copy_apart(root, destination):
    await CopySite(root).copy(packager=destination)


async def assert_ended(root, stored, destination):
    site = CopySite(root)
    image = (root / "image.raw").read_bytes()
    whole = await site.listed()
    for one in stored:
        if one.name in whole:
            assert await site.content(site.copied(one)) == image
    run = await site.copy(packager=destination)
    assert not site.of(CopyFailed)
    assert {one.backup for one in run.skipped} == set(whole)
    assert await site.listed() == [one.name for one in stored]
    for one in stored:
        assert await site.content(site.copied(one)) == image
    assert not [name for name in site.left_over() if name.endswith(".pending")]
    assert sorted(await site.verify()) == [one.name for one in stored]


@pytest.mark.parametrize("destination", ["directory", "tar", "zstd", "repository"])
@pytest.mark.parametrize("source", [DIRECTORY, PACKAGER], ids=["files", "repository"])
async def test_a_full_target_gets_what_fits_and_the_rest_when_there_is_room(
    tmp_path, source, destination
):
    site = CopySite(tmp_path)
    (tmp_path / "image.raw").write_bytes(os.urandom(4 * MIB))
    small = await site.store(source)
    (tmp_path / "big.raw").write_bytes(os.urandom(20 * MIB))
    big = await site.store(source, date=DATE + DAY_S, image="big.raw")
    mount("-t", "tmpfs", "-o", "size=16m", "none", str(site.other))
    try:
        run = await site.copy(packager=destination)
        assert [one.backup for one in run.done] == [small.name]
        (failed,) = run.failed
        assert (failed.backup, failed.exit_code) == (big.name, 22)
        assert await site.listed() == [small.name]
        assert not [name for name in site.left_over() if name.startswith(big.name)]
        mount("-o", "remount,size=64m", str(site.other))
        again = await site.copy(packager=destination)
        assert [one.backup for one in again.done] == [big.name]
        assert await site.content(site.copied(big)) == (tmp_path / "big.raw").read_bytes()
    finally:
        subprocess.run(["umount", site.other], check=True)


def mount(*words):
    subprocess.run(["mount", *words], check=True)
