"""Killed at every file operation of ``forget``: the next ``clean`` ends it, and no more."""

import shutil
from functools import partial
from itertools import count

import anyio
import pytest

from fakes.forget_site import ForgetSite, flip_bit, garble, lose_data
from fakes.site import DIRECTORY
from fakes.small_repository import PACKAGER
from fakes.sudden_death import killed_before
from virtbackup_async.events import RemovalFailed


@pytest.mark.timeout(300)
@pytest.mark.parametrize("breakage", [None, lose_data, garble, flip_bit])
@pytest.mark.parametrize("packager", [DIRECTORY, PACKAGER])
def test_whatever_dies_the_next_clean_ends_it(memory, packager, breakage):
    begun = ForgetSite(memory / "begun")
    first, second, third = anyio.run(begun.store_three, packager)
    if breakage is not None:
        breakage(second)
    for deaths in count():
        shutil.rmtree(memory / "now", ignore_errors=True)
        shutil.copytree(begun.root, memory / "now")
        if not killed_before(deaths, partial(anyio.run, forget_apart, memory / "now", second)):
            break
        anyio.run(assert_ended, memory / "now", second, {first.name, third.name})
    assert deaths > 3


async def forget_apart(root, stored):
    await ForgetSite(root).forget(stored)


async def assert_ended(root, stored, others):
    site = ForgetSite(root)
    await site.clean()
    assert not site.of(RemovalFailed)
    listed = set(await site.listed())
    assert others <= listed
    left = site.files_of(stored)
    assert bool(left) == (site.target / "web" / f"{stored.name}.json").exists(), left
    assert set(await site.verify()) == listed
