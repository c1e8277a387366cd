"""Leases in an object store: refreshed, lost, broken by one of two, and seen on this host."""

import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest

from faults.lossy_proxy import Fault, lossy_proxy
from object_stores import IMPATIENT, memory_object_storage, new_location, new_storage
from virtbackup_async.errors import LockHeldError
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.storage import leases
from virtbackup_async.repository.storage.objects import lease as module
from virtbackup_async.repository.storage.objects.connecting import open_object_storage

HOLDER = "0a" * 12
NAME = leases.lease_file(HOLDER)


@pytest.fixture
def storage():
    return memory_object_storage()


@pytest.fixture
def prompt(monkeypatch):
    """Every refresh is due."""
    monkeypatch.setattr(module, "REFRESH_S", 0)


def take(storage, content=b"who"):
    return storage.take_lease(NAME, content, ())


def look_of(storage):
    looks = []
    storage.remove_lease_if(NAME, looks.append)
    return looks[0]


def remove_dead(storage):
    storage.remove_lease_if(NAME, lambda _look: True)


def requests(storage):
    return storage.traffic.total().requests


def test_a_refresh_is_due_every_ten_minutes(storage, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module, "since_boot_s", lambda: now[0])
    lease = take(storage)
    before = requests(storage)
    now[0] += 599
    lease.refresh()
    assert requests(storage) == before
    now[0] += 1
    lease.refresh()
    assert requests(storage) == before + 3
    lease.refresh()
    assert requests(storage) == before + 3
    assert lease.is_held()
    lease.remove()


def test_a_refreshed_lease_is_younger(storage, prompt):
    lease = take(storage)
    first = look_of(storage).modified_s
    lease.refresh()
    assert look_of(storage).modified_s > first
    assert look_of(storage).content == b"who"
    lease.remove()
    assert not storage.exists(NAME)


def test_a_broken_lease_is_never_held_again(storage, prompt):
    lease = take(storage)
    remove_dead(storage)
    lease.refresh()
    assert not storage.exists(NAME)
    other = take(storage)
    lease.refresh()
    assert not lease.is_held()
    lease.remove()
    assert other.is_held()
    other.remove()


def test_a_lease_that_is_broken_while_it_is_refreshed_stays_broken(storage, prompt, monkeypatch):
    lease = take(storage)
    read = storage.calls.get

    def read_and_stand_still(name, max_bytes):
        found = read(name, max_bytes)
        monkeypatch.setattr(storage.calls, "get", read)
        remove_dead(storage)
        return found

    monkeypatch.setattr(storage.calls, "get", read_and_stand_still)
    lease.refresh()
    assert not storage.exists(NAME)
    assert not lease.is_held()
    lease.remove()


def test_without_conditions_a_holder_that_stood_still_for_a_day_takes_itself_for_dead(
    storage, prompt, monkeypatch
):
    storage.calls.can_create = False
    lease = take(storage)
    lease.refresh()
    assert lease.is_held()
    monkeypatch.setattr(module, "EXPIRY_S", 0)
    lease.refresh()
    assert storage.exists(NAME)
    assert not lease.is_held()
    lease.remove()


def test_of_two_that_break_a_lease_one_does(storage):
    storage.put_new(NAME, b"dead")
    taken = []

    def is_dead(_look):
        remove_dead(storage)
        taken.append(take(storage, b"new"))
        return True

    storage.remove_lease_if(NAME, is_dead)
    assert taken[0].is_held()
    taken[0].remove()


def test_who_was_too_slow_to_remove_a_broken_lease_leaves_it(storage, monkeypatch):
    storage.put_new(NAME, b"dead")
    seconds = iter([0.0, 200.0])
    monkeypatch.setattr(module, "since_boot_s", lambda: next(seconds))
    remove_dead(storage)
    # It counts as a living lease for a day: somebody may have taken it by now.
    assert storage.exists(NAME)
    monkeypatch.setattr(module, "since_boot_s", lambda: 0.0)
    with pytest.raises(FileExistsError):
        take(storage)


LOSSES = (Fault.LOSE_ANSWER, Fault.FAIL_AFTER, Fault.LATE, Fault.REPEAT, Fault.LIE, Fault.CONFLICT)


@pytest.mark.parametrize("fault", LOSSES, ids=lambda fault: fault.name)
def test_lost_answers_break_no_lease_and_leave_none(object_server, prompt, fault):
    with lossy_proxy(object_server.endpoint) as proxy:
        storage = open_object_storage(new_location(proxy.endpoint), IMPATIENT)
        number = 0

        def plan(method, _path):
            nonlocal number
            number += method == "PUT"
            return fault if method == "PUT" and number % 2 else None

        proxy.plan = plan
        lease = take(storage)
        for _ in range(3):
            lease.refresh()
            assert lease.is_held()
        remove_dead(storage)
        assert not lease.is_held()
        assert not storage.exists(NAME)
        lease.remove()
        assert proxy.met["PUT"]


# On this host.

HOLD = textwrap.dedent("""
    import sys
    from virtbackup_async.model.storage_location import StorageLocation
    from virtbackup_async.repository.storage.leases import take_lease
    from virtbackup_async.repository.storage.repository_file import open_storage
    at = StorageLocation("s3", sys.argv[1], endpoint=sys.argv[2])
    lease = take_lease(open_storage(at), sys.argv[3])
    print("held", flush=True)
    sys.stdin.read()
""")


@contextmanager
def held_elsewhere(storage):
    """A lease of another process of this host, which the block may kill."""
    at = storage.location
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, at.path, at.endpoint, HOLDER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def test_a_killed_holder_of_this_host_is_seen_at_once(object_server):
    storage = new_storage(object_server)
    with held_elsewhere(storage) as process:
        assert look_of(storage).is_locked is True
        assert leases.living_holders(storage) == {HOLDER}
        process.kill()
        process.wait()
        assert leases.living_holders(storage) == frozenset()
        assert not storage.exists(NAME)


def test_a_holder_in_another_network_of_this_kernel_may_live(storage):
    lease = take(storage)
    line = storage.read(NAME, 1000).rpartition(b"-")
    storage.replace(NAME, line[0] + b"-1\n")
    assert look_of(storage).is_locked is None
    lease.remove()


@pytest.mark.parametrize(("host", "lives"), [("another host", True), (leases.host_id(), False)])
def test_a_holder_before_this_start_is_dead_if_it_was_here(storage, host, lives):
    lease = storage.take_lease(NAME, sealed_json.dumps({"host": host, "pid": 1}), ())
    content, _, kernel = storage.read(NAME, 1000).rpartition(b"\n-"[:1])[0].rpartition(b"\n")
    holder, number, _boot, network = kernel.split(b"-")
    old = b"-".join([holder, number, b"0" * 32, network])
    storage.replace(NAME, content + b"\n" + old + b"\n")
    assert look_of(storage).is_locked is False
    assert leases.living_holders(storage) == ({HOLDER} if lives else frozenset())
    lease.remove()


def test_a_holder_of_another_host_is_dead_after_a_day_by_the_clock_of_the_store(
    storage, monkeypatch
):
    note = sealed_json.dumps({"host": "another host", "pid": 1})
    storage.put_new(NAME, note + b"\n" + b"0a" * 12 + b"-1-" + b"0" * 32 + b"-1\n")
    written_s = storage.status(NAME).version[1]
    for age_s, lives in ((0, True), (23 * 3600, True), (24 * 3600, False)):
        monkeypatch.setattr(storage, "clock", lambda _, age_s=age_s: written_s + age_s)
        assert (leases.living_holders(storage) == {HOLDER}) is lives


def test_two_prunes_exclude_each_other(object_server):
    storage = new_storage(object_server)
    lease = leases.take_prune_lease(storage)
    with pytest.raises(LockHeldError):
        leases.take_prune_lease(new_storage_like(storage))
    lease.check()
    lease.close()
    leases.take_prune_lease(storage).close()


def new_storage_like(storage):
    return open_object_storage(storage.location)
