"""Killed at every change on each kind of storage: nothing is lost, and nothing leaks.

Backups that were whole restore, what stands for a backup is one, and the next prune removes all
that nobody needs. A few points in each run, all with ``--all-points``; local directories, which are
not encrypted, have tests of their own (``test_repository_deaths.py``).
"""

from functools import partial

import anyio
import pytest

from fakes.small_repository import content
from faults.dying_process import BIG, MERGED, NEW, OLD
from faults.grounds import KINDS, Ground, dying
from virtbackup_async.repository.prune import prune as pruning
from virtbackup_async.repository.storage.layout import PENDING_DELETION, REPOSITORY_FILE

GOOD, BAD, LOST = (1, 2, 3), (4, 5), (6,)

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def dying_program():
    with dying() as program:
        yield program


@pytest.fixture(params=KINDS)
def ground(request, memory, dying_program, monkeypatch):
    has_server = "s3" in request.param
    server = request.getfixturevalue("object_server") if has_server else None
    return Ground(request.param, memory, dying_program, server, monkeypatch)


@pytest.fixture
def each_death(ground, request):
    all_points = request.config.getoption("--all-points", default=False)
    return partial(ground.each_death, all_points=all_points)


def make(place, **backups):
    place.make()
    for name, chunks in backups.items():
        anyio.run(place.back_up, name, chunks)


def assert_good(place, **backups):
    for name, chunks in backups.items():
        assert anyio.run(place.restored, name) == content(chunks)


def test_a_backup_that_dies_anywhere_hurts_no_other(each_death):
    for place in each_death("back up", partial(make, old=OLD)):
        if "new" in place.names():
            assert_good(place, new=NEW)
        place.prune()
        make(place, again=NEW)
        assert_good(place, old=OLD, again=NEW)
        place.assert_nothing_leaks()


def test_the_first_backup_of_a_repository_may_die_anywhere(each_death):
    for place in each_death("back up", lambda _place: None):
        place.prune()
        make(place, again=NEW)
        assert_good(place, again=NEW)
        place.assert_nothing_leaks()


def test_a_prune_that_dies_anywhere_loses_nothing(each_death):
    def prepare(place):
        make(place, gone=BIG, old=OLD)
        place.remove("gone")

    for place in each_death("prune", prepare):
        assert_good(place, old=OLD)
        # A backup that comes now counts on nothing that the next prune removes.
        make(place, new=NEW)
        place.prune()
        assert_good(place, old=OLD, new=NEW)
        place.assert_nothing_leaks()


def test_a_merge_of_the_index_that_dies_anywhere_loses_nothing(each_death, monkeypatch):
    backups = {"old": OLD, "new": NEW, "big": BIG}
    for place in each_death("merge", partial(make, **backups)):
        monkeypatch.setattr(pruning, "MAX_SEGMENTS", MERGED - 1)
        assert_good(place, **backups)
        place.prune()
        assert_good(place, **backups)
        # A small one that was to go may stay until there is more to merge.
        assert len(place.segments()) < MERGED
        place.assert_nothing_leaks()


def damage(place):
    """A chunk, the head of a pack, a segment, a map, the note and what it is: all damaged."""
    make(place, good=GOOD)
    (first,) = place.packs()
    place.remove("good")
    make(place, good=GOOD)
    (segment,) = place.segments()
    make(place, bad=BAD)
    (pack,) = set(place.packs()) - {first}
    place.flip(pack, place.raw.status(pack).size_bytes - 40)
    make(place, unmapped=LOST)
    place.flip(place.map_file("unmapped"), 60)
    place.flip(segment, 40)
    place.flip(first, 20)
    place.raw.replace(PENDING_DELETION, b"?")
    place.flip(REPOSITORY_FILE, 30)


def test_a_repair_that_dies_anywhere_loses_nothing(each_death):
    for place in each_death("repair", damage):
        (repaired,) = place.repair()
        assert repaired.waiting_maps == 2
        place.prune()
        assert_good(place, good=GOOD)
        # A backup that comes now heals what was lost, and nothing goes that is needed.
        make(place, again=BAD)
        assert_good(place, bad=BAD)
        (healed,) = place.repair()
        assert (healed.dropped_chunks, healed.waiting_maps) == (0, 1)
        place.flip(place.map_file("unmapped"), 60)
        if not place.location.is_encrypted:
            # Of a sealed map, nobody knew any more which chunks it needs.
            assert_good(place, unmapped=LOST)
