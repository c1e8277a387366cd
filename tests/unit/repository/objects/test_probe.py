"""What a store keeps of its promises is found out, recorded, and decides who may prune."""

from contextlib import closing, contextmanager

import pytest
from msgspec.structs import replace

from faults.lossy_proxy import CONDITIONS, Answer, at_random, lossy_proxy
from object_stores import IMPATIENT, memory_object_storage, new_location, new_storage
from virtbackup_async.engine.doctor.target import check_target
from virtbackup_async.errors import LockHeldError, StorageError
from virtbackup_async.events import Level
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.layout import LEASES
from virtbackup_async.repository.storage.leases import take_lease, take_prune_lease
from virtbackup_async.repository.storage.objects import probe as module
from virtbackup_async.repository.storage.objects.connecting import open_object_storage

HOLDER = "0a" * 12


@contextmanager
def weak_store(server, how, monkeypatch):
    """A storage whose server ignores conditions, or has none."""
    monkeypatch.setattr(module, "SETTLE_S", 0)
    with lossy_proxy(server.endpoint) as proxy:
        setattr(proxy, how, CONDITIONS)
        yield open_object_storage(new_location(proxy.endpoint), IMPATIENT)


each_weakness = pytest.mark.parametrize("how", ["ignored", "refused"])


def record_of(storage):
    data = storage.read(module.RECORD, 10_000)
    return None if data is None else sealed_json.loads(data, "record")


def as_another_host(storage, monkeypatch):
    monkeypatch.setattr(
        "virtbackup_async.repository.storage.objects.storage.host_id", lambda: "another host"
    )
    return open_object_storage(storage.location, IMPATIENT)


@pytest.mark.parametrize("kind", ["memory", "seaweed"])
def test_a_store_that_keeps_its_promises_has_no_weakness(request, kind):
    if kind == "memory":
        storage = memory_object_storage()
    else:
        storage = new_storage(request.getfixturevalue("object_server"))
    assert storage.probe() == []
    assert storage.calls.list_directory(LEASES)[0] == {}


@pytest.mark.parametrize("seed", range(3))
def test_lost_answers_are_no_weakness(object_server, seed):
    with lossy_proxy(object_server.endpoint) as proxy:
        proxy.plan = at_random(seed, share=0.2)
        assert open_object_storage(new_location(proxy.endpoint), IMPATIENT).probe() == []


@pytest.mark.parametrize(("late_writes", "is_strong"), [(1, True), (2, False)])
def test_a_lost_write_that_arrives_late_is_no_weakness(monkeypatch, late_writes, is_strong):
    """The record counts for ever, so one write that took a detour must not decide it."""
    storage = memory_object_storage()
    put, first, left = storage.calls.put, {}, [None] * late_writes

    def put_and_let_the_first_arrive_again(name, parts):
        meta = put(name, parts)
        if name not in first:
            first[name] = parts
        elif left:
            left.pop()
            put(name, first[name])
        return meta

    monkeypatch.setattr(storage.calls, "put", put_and_let_the_first_arrive_again)
    assert (storage.probe() == []) is is_strong
    assert left == []
    assert storage.calls.list_directory(LEASES)[0] == {}


def test_the_first_lease_records_what_was_found(object_server):
    storage = new_storage(object_server)
    take_lease(storage, HOLDER).close()
    assert record_of(storage)["conditions"] is True
    assert storage.names(LEASES, {Kind.FILE}) == []
    again = open_object_storage(storage.location)
    take_lease(again, HOLDER).close()
    assert again.traffic.by_kind()["get", "repository"].requests == 1
    assert ("put", "repository") not in again.traffic.by_kind()


@each_weakness
def test_a_store_without_conditions_is_used_and_pruned_by_one_host(object_server, monkeypatch, how):
    with weak_store(object_server, how, monkeypatch) as storage:
        (weakness,) = storage.probe()
        assert "ignores or lacks conditional writes" in weakness
        take_lease(storage, HOLDER).close()
        assert record_of(storage)["conditions"] is False
        lease = take_prune_lease(storage)
        for same_host in (storage, open_object_storage(storage.location, IMPATIENT)):
            with pytest.raises(LockHeldError):
                take_prune_lease(same_host)
        lease.check()
        lease.close()
        take_prune_lease(storage).close()
        other = as_another_host(storage, monkeypatch)
        take_lease(other, HOLDER).close()
        with pytest.raises(StorageError, match=r"only host '.*' can") as error:
            take_prune_lease(other)
        assert module.RECORD in error.value.hint
        assert storage.names(LEASES, {Kind.FILE}) == []


@each_weakness
def test_a_name_is_not_taken_twice_on_purpose_without_conditions(object_server, monkeypatch, how):
    with weak_store(object_server, how, monkeypatch) as storage:
        take_lease(storage, HOLDER).close()
        storage.put_new("d/a", b"first")
        with pytest.raises(FileExistsError):
            storage.put_new("d/a", b"other")
        assert storage.read("d/a", 10) == b"first"


def test_a_store_whose_lists_are_stale_is_refused(object_server):
    with lossy_proxy(object_server.endpoint) as proxy:
        empty = Answer(200, body="<ListBucketResult></ListBucketResult>")
        proxy.plan = lambda _method, path: empty if "list-type" in path else None
        storage = open_object_storage(new_location(proxy.endpoint), IMPATIENT)
        assert ["does not list" in weakness for weakness in storage.probe()] == [True]
        with pytest.raises(StorageError, match="does not list what was written") as error:
            take_lease(storage, HOLDER)
        assert error.value.exit_code == 22


@pytest.mark.parametrize("damage", [b"", b"{}", b"?" * 100])
def test_a_damaged_record_is_made_anew(object_server, damage):
    storage = new_storage(object_server)
    storage.replace(module.RECORD, damage)
    take_lease(storage, HOLDER).close()
    assert record_of(storage)["conditions"] is True


@each_weakness
async def test_doctor_probes_a_target_in_a_store(object_server, monkeypatch, how):
    strong = new_location(object_server.endpoint)
    assert [(found.level, found.code) for found in await check_target(strong)] == [
        (Level.OK, "target_listed")
    ]
    with weak_store(object_server, how, monkeypatch) as storage:
        listed, lack = await check_target(storage.location)
    assert (listed.level, lack.level, lack.code) == (Level.OK, Level.WARNING, "target_lacks")
    assert lack.message == "ignores or lacks conditional writes: only one host can clean there"
    missing = new_location(object_server.endpoint, "no-such-bucket")
    (problem,) = await check_target(missing)
    assert (problem.level, problem.code) == (Level.PROBLEM, "target_unreachable")
    assert "the bucket is missing" in problem.message


async def test_doctor_takes_an_encrypted_target_before_its_first_backup_for_a_new_one(
    object_server, tmp_path
):
    target = replace(new_location(object_server.endpoint), key_file=tmp_path / "key")
    listed, new = await check_target(target)
    assert (listed.level, new.level, new.code) == (Level.OK, Level.INFO, "target_new")
    assert list(tmp_path.iterdir()) == []


@each_weakness
def test_without_conditions_one_host_changes_definitions_one_process_at_a_time(
    object_server, monkeypatch, how
):
    with weak_store(object_server, how, monkeypatch) as storage:
        take_lease(storage, HOLDER).close()
        held = storage.hold("web")
        assert held is not None
        assert open_object_storage(storage.location, IMPATIENT).hold("web") is None
        storage.hold("mail").close()
        held.close()
        storage.hold("web").close()
        other = as_another_host(storage, monkeypatch)
        with pytest.raises(StorageError, match=r"cannot change backups in .*only host") as refused:
            other.hold("web")
        assert "Do it on that host" in refused.value.hint


def test_with_conditions_nobody_waits(object_server):
    storage = new_storage(object_server)
    with closing(storage.hold("web")), closing(storage.hold("web")):
        pass
