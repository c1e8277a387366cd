"""Killed at every file operation of a backup into a repository, and of a prune: nothing is lost.

After each death: backups that were whole restore, what stands for a backup is one, and the next
prune removes all that nobody needs.
"""

from functools import partial

import anyio
import pytest

from fakes.repository_files import files_of
from fakes.small_repository import content, each_death
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository.prune import prune as pruning
from virtbackup_async.repository.prune.prune import prune_repository
from virtbackup_async.repository.storage.layout import list_segments
from virtbackup_async.repository.storage.repository_file import find_repository

OLD = content([1, 2, 3])
NEW = content([2, 0, 4, 5])
BIG = content(range(1, 9))
MERGED = 3


def run_sweep(place):
    repository = find_repository(place.location)
    return (
        None
        if repository is None
        else prune_repository(repository, partial(list_maps, repository.storage), lambda: None)
    )


async def make(place, **backups):
    for name, data in backups.items():
        await place.back_up(name, data)


async def assert_good(place, **backups):
    for name, data in backups.items():
        assert await place.restored(name) == data


def assert_nothing_leaks(place):
    """What is left when all backups are gone, is pruned away."""
    for path in place.directory.glob("*.map"):
        path.unlink()
    run_sweep(place)
    assert place.packs() == []
    assert place.indexed() == []
    assert not files_of(find_repository(place.location)).pending_deletion.exists()


@pytest.mark.timeout(300)
def test_a_backup_that_dies_anywhere_hurts_no_other(memory):
    def prepare(place):
        anyio.run(partial(make, place, old=OLD))

    def work(place):
        anyio.run(partial(make, place, new=NEW))

    async def check(place):
        if place.map_path("new").exists():
            await assert_good(place, new=NEW)
        run_sweep(place)
        await make(place, again=NEW)
        await assert_good(place, old=OLD, again=NEW)
        assert_nothing_leaks(place)

    for place in each_death(memory, prepare, work):
        anyio.run(check, place)


@pytest.mark.timeout(300)
def test_the_first_backup_of_a_repository_may_die_anywhere(memory):
    def work(place):
        anyio.run(partial(make, place, new=NEW))

    async def check(place):
        run_sweep(place)
        await make(place, again=NEW)
        await assert_good(place, again=NEW)
        assert_nothing_leaks(place)

    for place in each_death(memory, lambda _place: None, work):
        anyio.run(check, place)


@pytest.mark.timeout(300)
def test_a_sweep_that_dies_anywhere_loses_nothing(memory):
    def prepare(place):
        anyio.run(partial(make, place, gone=BIG, old=OLD))
        place.remove("gone")

    async def check(place):
        await assert_good(place, old=OLD)
        # A backup that comes now counts on nothing that the next prune removes.
        await make(place, new=NEW)
        run_sweep(place)
        await assert_good(place, old=OLD, new=NEW)
        assert_nothing_leaks(place)

    for place in each_death(memory, prepare, run_sweep):
        anyio.run(check, place)


@pytest.mark.timeout(300)
def test_a_merge_of_the_index_that_dies_anywhere_loses_nothing(memory, monkeypatch):
    monkeypatch.setattr(pruning, "MAX_SEGMENTS", MERGED - 1)

    def prepare(place):
        anyio.run(partial(make, place, old=OLD, new=NEW, big=BIG))

    async def check(place):
        await assert_good(place, old=OLD, new=NEW, big=BIG)
        run_sweep(place)
        await assert_good(place, old=OLD, new=NEW, big=BIG)
        # A small one that was to go may stay until there is more to merge.
        assert len(list_segments(find_repository(place.location).storage)) < MERGED
        assert_nothing_leaks(place)

    for place in each_death(memory, prepare, run_sweep):
        anyio.run(check, place)
