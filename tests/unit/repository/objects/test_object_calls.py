"""One call of an object store at a time, under each fault: what was done is found out."""

from contextlib import contextmanager

import pytest

from faults.lossy_proxy import Answer, Fault, lossy_proxy
from object_server import BUCKET
from object_stores import IMPATIENT, new_location
from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.objects.connecting import open_object_storage
from virtbackup_async.repository.storage.objects.requests import Patience

FAULTS = [fault for fault in Fault if fault not in {Fault.STALL, Fault.SHORTEN}]
each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)


@contextmanager
def meeting(server, faults, method="PUT", patience=IMPATIENT):
    """A storage whose first requests of a method meet some faults."""
    left = list(faults)
    with lossy_proxy(server.endpoint) as proxy:
        proxy.plan = lambda met, _path: left.pop(0) if met == method and left else None
        yield open_object_storage(new_location(proxy.endpoint), patience), proxy


@each_fault
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_name_is_created_whatever_happens_to_the_answers(object_server, fault, times):
    with meeting(object_server, [fault] * times) as (storage, proxy):
        storage.put_new("d/a", b"own")
        assert storage.read("d/a", 10) == b"own"
        assert proxy.met["PUT"]


@each_fault
def test_the_name_of_another_is_never_taken_for_the_own(object_server, fault):
    with meeting(object_server, [None, fault, fault]) as (storage, _):
        storage.put_new("d/a", b"first")
        with pytest.raises(FileExistsError):
            storage.put_new("d/a", b"other")
        assert storage.read("d/a", 10) == b"first"


@each_fault
@pytest.mark.parametrize("verb", ["replace", "overwrite", "clock"])
def test_what_is_written_over_is_written(object_server, fault, verb):
    with meeting(object_server, [None, fault]) as (storage, proxy):
        storage.put_new("d/a", b"old")
        if verb == "clock":
            assert storage.clock("d") > 0
        else:
            getattr(storage, verb)("d/a", b"new")
            assert storage.read("d/a", 10) == b"new"
        assert proxy.met["PUT"]


@each_fault
def test_what_is_removed_is_gone(object_server, fault):
    with meeting(object_server, [fault], "DELETE") as (storage, proxy):
        storage.put_new("d/a", b"old")
        storage.remove("d/a")
        assert not storage.exists("d/a")
        assert proxy.met["DELETE"]


PACK = ".virtbackup-repository/packs/aa/x.pack"
READ_FAULTS = [Fault.LOSE_REQUEST, Fault.LOSE_ANSWER, Fault.FAIL, Fault.FAIL_AFTER, Fault.CONFLICT,
               Fault.REPEAT, Fault.CUT_OFF, Fault.STALL]  # fmt: skip


@pytest.mark.parametrize("name", [PACK, "d/a"], ids=["ranges", "copy"])
@pytest.mark.parametrize("fault", READ_FAULTS, ids=lambda fault: fault.name)
def test_what_is_read_is_complete(object_server, fault, name):
    content = bytes(range(256)) * 4096
    # Only an answer that never comes is to be given up soon.
    answer_s = 0.3 if fault is Fault.STALL else 60
    patience = Patience(answer_s=answer_s, first_s=60, gone_s=60, pause_s=0.01)
    with meeting(object_server, [fault, None, fault], "GET", patience) as (storage, proxy):
        storage.put_new(name, content)
        file = storage.open(name)
        assert file.read(len(content), 0) == content
        assert storage.read(name, 1 << 30) == content
        assert proxy.met["GET"]


def test_a_range_whose_answer_is_shorter_than_it_says_is_read_again(object_server):
    content = bytes(range(256)) * 4096
    with meeting(object_server, [None, Fault.SHORTEN], "GET") as (storage, proxy):
        storage.put_new(PACK, content)
        assert storage.open(PACK).read(1 << 19, 1 << 18) == content[1 << 18 : 3 << 18]
        assert proxy.met["GET"] == [Fault.SHORTEN]


def test_a_store_that_lies_on_and_on_is_no_success(object_server):
    patience = Patience(answer_s=60, first_s=0.2, gone_s=0.2, pause_s=0.01)
    with meeting(object_server, [Fault.LIE] * 10_000, "PUT", patience) as (storage, _):
        for write in (storage.put_new, storage.replace):
            with pytest.raises(StorageError):
                write("d/a", b"x")
        assert not storage.exists("d/a")


def test_what_a_failed_pack_left_is_removed(object_server):
    patience = Patience(answer_s=60, first_s=0.2, gone_s=0.2, pause_s=0.01)
    with meeting(object_server, [], "PUT", patience) as (storage, proxy):
        file = storage.create("d/a")
        file.append(b"x")
        proxy.plan = lambda met, _path: Fault.LOSE_ANSWER if met in {"PUT", "GET"} else None
        with pytest.raises(StorageError):
            file.finish()
        proxy.plan = lambda _method, _path: None
        assert storage.exists("d/a")
        file.discard()
        assert not storage.exists("d/a")


def test_a_segment_that_may_be_there_counts_as_named(object_server):
    patience = Patience(answer_s=60, first_s=0.2, gone_s=0.2, pause_s=0.01)
    with meeting(object_server, [], "PUT", patience) as (storage, proxy):
        file, named = storage.create_hidden("d/a"), []
        file.append(b"x")
        proxy.plan = lambda met, _path: Fault.LOSE_ANSWER
        with pytest.raises(StorageError):
            file.publish(lambda: named.append("a"))
        assert named == ["a"]


def test_a_store_without_conditions_is_written_all_the_same(object_server):
    with lossy_proxy(object_server.endpoint) as proxy:
        conditions = 0

        def plan(method, _path):
            nonlocal conditions
            # As stores answer to a header that they do not know; the proxy does not see headers.
            conditions += method == "PUT"
            return Answer(501, "NotImplemented") if method == "PUT" and conditions == 1 else None

        proxy.plan = plan
        storage = open_object_storage(new_location(proxy.endpoint), IMPATIENT)
        storage.put_new("d/a", b"x")
        assert not storage.calls.can_create
        with pytest.raises(FileExistsError):
            storage.put_new("d/a", b"other")
        storage.take_lease("d/lease", b"who", ()).remove()
        storage.overwrite("d/a", b"y")
        assert storage.read("d/a", 10) == b"y"


def test_the_bucket_is_made_if_that_is_wanted(object_server):
    bucket = new_location("").path.rpartition("/")[2]
    location = StorageLocation(
        "s3", f"b-{bucket}/prefix", endpoint=object_server.endpoint, create_bucket=True
    )
    storage = open_object_storage(location, IMPATIENT)
    assert storage.read("d/a", 10) is None
    storage.put_new("d/a", b"x")
    assert open_object_storage(location).read("d/a", 10) == b"x"


def test_a_target_can_be_all_of_a_bucket(object_server):
    bucket = f"b-{new_location('').path.rpartition('/')[2]}"
    location = StorageLocation("s3", bucket, endpoint=object_server.endpoint, create_bucket=True)
    storage = open_object_storage(location)
    storage.put_new("web/a", b"x")
    assert storage.names("", frozenset(Kind)) == ["web"]
    assert storage.sizes([f"{n}/a" for n in ("web", "a", "b", "c", "d")]) == {"web/a": 1}


def test_requests_and_bytes_are_counted_by_kind(object_server):
    storage = open_object_storage(new_location(object_server.endpoint))
    pack = ".virtbackup-repository/packs/aa/x.pack"
    file = storage.create(pack)
    file.append(b"x" * 1000)
    file.finish()
    storage.open(pack).read(10, 0)
    storage.replace("web/definition.json", b"12")
    counts = storage.traffic.by_kind()
    assert (counts["put", "packs"].requests, counts["put", "packs"].sent_bytes) == (1, 1000)
    assert (counts["get", "packs"].requests, counts["get", "packs"].received_bytes) == (1, 1000)
    assert counts["put", "guests"].sent_bytes == 2
    assert storage.traffic.total().requests == sum(count.requests for count in counts.values())


def test_a_try_that_fails_is_counted_too(object_server):
    with meeting(object_server, [Fault.FAIL] * 3, "GET") as (storage, _):
        storage.read("d/a", 10)
        assert storage.traffic.by_kind()["get", "guests"].requests == 4


def test_the_same_place_is_the_same_storage(object_server):
    location = new_location(object_server.endpoint)
    one, two = open_object_storage(location), open_object_storage(location)
    assert one == two
    assert hash(one) == hash(two)
    assert one != open_object_storage(new_location(object_server.endpoint))
    assert str(one.where("d/a")) == f"s3://{location.path}/d/a"
    assert BUCKET in one.where()
