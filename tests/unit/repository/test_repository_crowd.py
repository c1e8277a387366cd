"""Many processes at once: backups of several domains, one that is killed, and prunes beside them.

Who comes first where is up to the machine; what is there in the end is not.
"""

import os
import random
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import pytest

from fakes.small_repository import SmallRepository, content
from fakes.sudden_death import die_before
from virtbackup_async.errors import LockHeldError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository.prune.prune import MAX_SEGMENTS, prune_repository
from virtbackup_async.repository.storage.layout import list_segments
from virtbackup_async.repository.storage.leases import living_holders
from virtbackup_async.repository.storage.repository_file import find_repository, make_repository

WRITERS = 3
NIGHTS = 5
KEPT = 2


@pytest.fixture
def target():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory) / "target"


def started(work: Callable[[], None]) -> int:
    """Begin ``work`` in a process of its own; return its number."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def image_of(writer: int, night: int) -> bytes:
    """Some chunks that other writers and nights have too, and some that none has."""
    numbers = random.Random(writer * 100 + night)
    shared = [numbers.randrange(40) for _ in range(8)]
    return content([*shared, 1000 + writer * 100 + night])


def name_of(writer: int, night: int) -> str:
    return f"20260301-0215{night:02}_3_web{writer}"


def back_up_and_forget(target: Path, writer: int) -> None:
    """Make backups, and remove each when it is two nights old."""
    place = SmallRepository(target)
    for night in range(NIGHTS):
        anyio.run(place.back_up, name_of(writer, night), image_of(writer, night))
        if night >= KEPT:
            place.remove(name_of(writer, night - KEPT))


def die_on_the_way(target: Path) -> None:
    die_before(30)
    back_up_and_forget(target, WRITERS)


def run_sweep(target: Path):
    with suppress(LockHeldError):
        repository = find_repository(StorageLocation.of(target))
        return prune_repository(repository, partial(list_maps, repository.storage), lambda: None)


def sweep_often(target: Path) -> None:
    for _ in range(NIGHTS):
        run_sweep(target)


@contextmanager
def at_once(works: Iterable[Callable[[], None]]) -> Iterator[Callable[[], dict[int, int]]]:
    """Begin all; give what tells by what each that has ended did so. None outlives the block."""
    pids = [started(work) for work in works]
    ended: dict[int, int] = {}

    def look(options: int = os.WNOHANG) -> dict[int, int]:
        for number, pid in enumerate(pids):
            if number not in ended and (found := os.waitpid(pid, options))[0]:
                ended[number] = os.waitstatus_to_exitcode(found[1])
        return ended

    try:
        yield look
    finally:
        for pid in (pid for number, pid in enumerate(pids) if number not in ended):
            os.kill(pid, signal.SIGKILL)
        look(options=0)


def sweep_until_nothing_goes(place: SmallRepository) -> None:
    """A prune leaves nothing to the next one but what is in two packs, of which one copy goes."""
    run_sweep(place.target)
    while True:
        indexed = place.indexed()
        is_twice = len(indexed) > len(set(indexed))
        before_bytes = sum(path.stat().st_size for path in place.packs())
        pruned = run_sweep(place.target)
        if not pruned.freed_bytes:
            return
        assert is_twice, "the prune before had left something"
        assert pruned.stored_bytes < before_bytes, "it would never end"


@pytest.mark.timeout(300)
def test_whoever_comes_first_all_restore_and_nothing_leaks(target):
    place = SmallRepository(target)
    make_repository(StorageLocation.of(target))
    works = [partial(back_up_and_forget, target, writer) for writer in range(WRITERS)]
    works += [partial(sweep_often, target), partial(die_on_the_way, target)]
    with at_once(works) as ended:
        while len(ended()) < len(works):
            run_sweep(target)
        assert list(ended().values()).count(0) == len(works) - 1
        assert ended()[len(works) - 1] == -signal.SIGKILL
    sweep_until_nothing_goes(place)
    for writer in range(WRITERS):
        for night in range(NIGHTS - KEPT, NIGHTS):
            assert anyio.run(place.restored, name_of(writer, night)) == image_of(writer, night)
    repository = find_repository(StorageLocation.of(target))
    assert not living_holders(repository.storage)
    assert len(list_segments(repository.storage)) <= MAX_SEGMENTS
    for path in place.directory.glob("*.map"):
        path.unlink()
    run_sweep(target)
    assert place.packs() == place.indexed() == []
