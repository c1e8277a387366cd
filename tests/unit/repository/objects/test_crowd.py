"""Processes that back up into one SeaweedFS at once, are killed, and are pruned meanwhile."""

import os
import subprocess
import sys
from contextlib import suppress

import pytest

from fakes import stored_images
from fakes.stored_images import chunk, image_of, prune_images, read_image, store_image
from object_stores import new_storage
from virtbackup_async.errors import LockHeldError
from virtbackup_async.repository.storage.leases import living_holders
from virtbackup_async.repository.storage.objects.connecting import open_object_storage

NIGHTS = 4
WRITERS = 3


def started(storage, writer, nights=NIGHTS):
    """A writer in a process of its own."""
    at = storage.location
    command = [
        sys.executable,
        stored_images.__file__,
        at.path,
        at.endpoint,
        str(writer),
        str(nights),
    ]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )


def check(storage, names):
    for name in names:
        writer, night = map(int, name.split("-"))
        assert read_image(storage, name) == [chunk(n) for n in image_of(writer, night)]


@pytest.mark.timeout(300)
def test_what_processes_completed_is_there_whoever_is_killed(object_server):
    storage = new_storage(object_server)
    writers = [started(storage, number) for number in range(WRITERS)]
    killed = started(storage, WRITERS, nights=1000)
    try:
        done = [killed.stdout.readline().strip() for _ in range(3)]
        killed.kill()
        done += killed.stdout.read().split()
        while any(process.poll() is None for process in writers):
            with suppress(LockHeldError):
                prune_images(storage)
        for process in writers:
            done += process.stdout.read().split()
            assert process.wait() == 0
    finally:
        for process in (*writers, killed):
            process.kill()
            process.wait()
            process.stdout.close()
    listed = {name.removesuffix(".map") for name in storage.names("web", {*stored_images.Kind})}
    completed = [name for name in done if name in listed]
    assert len(completed) >= WRITERS * 2
    check(storage, completed)
    # The killed one's lease is no hindrance on its own host.
    assert living_holders(storage) == frozenset()
    for name in listed - {*completed}:
        storage.remove(f"web/{name}.map")
    for _ in range(2):
        prune_images(storage)
        check(storage, completed)


def test_a_prune_asks_of_each_map_no_more_than_one_list_of_all(object_server):
    def requests(storage):
        return {
            verb: count.requests
            for (verb, kind), count in storage.traffic.by_kind().items()
            if kind == "guests"
        }

    storage = new_storage(object_server)
    found = []
    for nights in (2, 6):
        for night in range(nights):
            store_image(storage, f"{nights}-{night}", image_of(nights, night))
        prune_images(storage)
        again = open_object_storage(storage.location)
        prune_images(again)
        found.append(requests(again))
    assert found[0] == found[1]
    assert set(found[0]) == {"list"}
