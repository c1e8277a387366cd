"""Whatever stands in the place of whatever file of a target, nothing beyond it is touched."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from fakes.full_site import COMMANDS, ODDITIES, FullSite, a_link_outside, a_link_to_itself

EVERYWHERE = {a_link_outside, a_link_to_itself}
# Each kind of place has one more of them where not all are tried.
OTHERS = [oddity for oddity in ODDITIES if oddity not in EVERYWHERE]


@pytest.fixture(scope="module")
async def filled():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        site = FullSite(Path(directory) / "site")
        await site.fill()
        yield site


async def test_the_commands_work_where_all_is_as_it_should_be(filled, memory):
    site = filled.copy_to(memory / "site")
    for command in COMMANDS:
        await site.run(command)
    assert len(site.found) == 8
    assert all("is empty" in failure for failure in site.failures)


@pytest.mark.parametrize("oddity", ODDITIES)
async def test_whatever_stands_in_a_place(filled, memory, monkeypatch, request, oddity):
    everywhere = request.config.getoption("--all-points", default=False)
    places = filled.places()
    assert len(places) > 20
    if oddity in OTHERS and not everywhere:
        places = places[OTHERS.index(oddity) :: len(OTHERS)]
    for place in places:
        site = filled.copy_to(memory / "site")
        path = site.target / place
        path.rename(site.root / "aside")
        monkeypatch.chdir(path.parent)
        oddity(path, site)
        before = site.seen_outside()
        for command in COMMANDS:
            await site.run(command)
            assert site.seen_outside() == before, (place, command)
        os.chdir("/")
        shutil.rmtree(memory / "site")
