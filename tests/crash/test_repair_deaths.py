"""Killed at every file operation of a repair: nothing good is lost, and the next one ends it."""

import anyio
import pytest

from fakes.repaired import repair
from fakes.repository_files import files_of
from fakes.shared_site import flip
from fakes.small_repository import content, each_death
from virtbackup_async.repository.storage.repository_file import find_repository

GOOD = content([1, 2, 3])
BAD = content([4, 5])


def damage(place):
    """A chunk, the head of a pack, a segment, a map, the note and what it is: all damaged."""

    async def make():
        await place.back_up("good", GOOD)
        (segment,) = place.segments()
        await place.back_up("bad", BAD)
        (pack,) = set(place.packs()) - {first}
        flip(pack, pack.stat().st_size - 1)
        await place.back_up("unmapped", content([6]))
        flip(place.map_path("unmapped"), 60)
        flip(segment, 40)
        flip(first, 20)
        repository = find_repository(place.location)
        files_of(repository).pending_deletion.write_text("?")
        flip(files_of(repository).root / "repository", 30)

    async def make_first():
        await place.back_up("good", GOOD)

    anyio.run(make_first)
    (first,) = place.packs()
    place.remove("good")
    anyio.run(make)


@pytest.mark.timeout(300)
def test_a_repair_that_dies_anywhere_loses_nothing(memory):
    async def check(place):
        assert await place.restored("good") == GOOD
        # A backup that comes now heals what was lost, and nothing goes that is needed.
        await place.back_up("again", BAD)
        assert await place.restored("bad") == BAD

    for place in each_death(memory, damage, repair):
        (repaired,) = repair(place)
        assert repaired.waiting_maps == 2
        place.prune()
        anyio.run(check, place)
        (healed,) = repair(place)
        assert (healed.dropped_chunks, healed.waiting_maps) == (0, 1)
        flip(place.map_path("unmapped"), 60)
        assert anyio.run(place.restored, "unmapped") == content([6])
