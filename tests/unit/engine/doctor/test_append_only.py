"""engine/doctor/append_only.py: a target proves that it takes new files alone."""

import pytest

from fakes.memory_storage import MemoryStorage
from store_servers import served
from virtbackup_async.engine.doctor.append_only import check_append_only
from virtbackup_async.errors import StorageError
from virtbackup_async.events import Level
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.repository_file import STORAGES
from virtbackup_async.repository.storage.served.append_only import AppendOnlyStorage

PLACE = StorageLocation.of("test://place")
NAME = ".virtbackup-trial.host1"


@pytest.fixture
def check(monkeypatch):
    def check(storage, *, expected=True):
        monkeypatch.setitem(STORAGES, "test", lambda _at: storage)
        return check_append_only(PLACE, "host1", expected=expected)

    return check


def test_a_target_that_refuses_is_append_only(check):
    inner = MemoryStorage()
    for _ in range(2):
        (found,) = check(AppendOnlyStorage(inner))
        assert (found.level, found.code) == (Level.OK, "append_only")
    assert list(inner.files) == [NAME]


def test_a_target_that_does_not_is_a_problem(check):
    storage = MemoryStorage()
    (found,) = check(storage)
    assert (found.level, found.code) == (Level.PROBLEM, "not_append_only")
    assert "overwrite and remove" in found.message
    assert "config protect" in found.advice
    assert storage.files == {}


@pytest.mark.parametrize(
    ("verb", "can"), [("replace", "can remove files"), ("remove", "can overwrite files")]
)
def test_one_of_both_is_enough(check, monkeypatch, verb, can):
    def refuse(*_, **__):
        raise StorageError("refused")

    storage = MemoryStorage()
    monkeypatch.setattr(storage, verb, refuse)
    (found,) = check(storage)
    assert can in found.message


def test_a_server_that_claims_it_is_put_to_the_test(check):
    """Its key is a writer's, but the storage behind it refuses nothing."""
    storage = served(MemoryStorage(), append_only=True)
    (found,) = check(storage, expected=False)
    storage.link.close()
    assert found.code == "not_append_only"


def test_nothing_is_tried_where_nobody_expects_it(check):
    storage = MemoryStorage()
    assert check(storage, expected=False) == []
    assert storage.files == {}


def test_a_target_that_cannot_be_reached_is_a_problem(check):
    storage = MemoryStorage(room_bytes=0)
    (found,) = check(storage)
    assert (found.level, found.code) == (Level.PROBLEM, "append_only_untried")
