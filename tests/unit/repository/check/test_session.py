"""repository/check/session.py: a check beside whatever else works in the repository."""

import pytest

from fakes.failing_storage import FailingStorage
from fakes.memory_repository import IDS, make_memory_repository, store_chunks
from virtbackup_async.errors import StorageError
from virtbackup_async.repository.check.session import CheckSession
from virtbackup_async.repository.index.id_batches import ids_of
from virtbackup_async.repository.storage.layout import INDEX, Repository, list_segments
from virtbackup_async.repository.storage.leases import living_holders
from virtbackup_async.repository.storage.pending_deletion import (
    PendingDeletion,
    write_pending_deletion,
)


@pytest.fixture
def repository():
    made = make_memory_repository()
    store_chunks(made, 1, 2)
    return made


def needed(session, *numbers):
    unknown = session.checking.need(ids_of(b"".join(IDS[n] for n in numbers)))
    return session.checking.count_needed(), unknown


def test_it_holds_the_lease_of_a_writer_until_it_is_closed(repository):
    session = CheckSession(repository)
    try:
        (holder,) = living_holders(repository.storage)
        assert len(holder) == 24, "a prune waits for it"
        assert (session.problems, session.lease_error) == ([], None)
        repository.storage.now_s += 100
        session.refresh()
        assert repository.storage.files[f"{_leases(repository)}"].modified_s == 1_000_100.0
        assert needed(session, 1, 2, 9) == (2, 1)
    finally:
        session.close()
    assert living_holders(repository.storage) == frozenset()
    assert not session.checking._index.segments, "no file stays open"


def _leases(repository):
    (name,) = (name for name in repository.storage.files if "/leases/" in name)
    return name


def test_where_no_lease_can_be_taken_it_works_without(repository):
    def refuse(verb):
        if verb == "take_lease":
            raise StorageError("read-only file system")

    storage = FailingStorage(repository.storage, refuse)
    session = CheckSession(Repository(storage, repository.id, repository.sealing))
    session.refresh()
    assert str(session.lease_error) == "read-only file system"
    assert needed(session, 1) == (1, 0)
    session.close()


def test_a_pack_pending_deletion_counts_only_for_what_no_other_has(repository):
    (first,) = {location.pack for location in _places(repository)}
    write_pending_deletion(repository.storage, PendingDeletion(frozenset({first})))
    names = {name: repository.storage.read(name, 1 << 20) for name in _segments(repository)}
    for name in names:
        repository.storage.remove(name)
    store_chunks(repository, 1)
    for name, data in names.items():
        repository.storage.put_new(name, data)
    session = CheckSession(repository)
    assert needed(session, 1) == (1, 0), "the other copy"
    assert needed(session, 2) == (2, 0)
    session.close()


def _segments(repository):
    return [*list_segments(repository.storage)]


def _places(repository):
    session = CheckSession(repository)
    try:
        return [
            location
            for n in (1, 2)
            for segment in session.checking._index.segments
            for _, location in segment.find(IDS[n])
        ]
    finally:
        session.close()


def test_what_is_damaged_is_told_and_the_rest_is_checked(repository):
    (damaged,) = _segments(repository)
    store_chunks(repository, 3)
    repository.storage.files[damaged].data[-1] ^= 1
    write_pending_deletion(repository.storage, PendingDeletion())
    (note,) = (n for n in repository.storage.files if n.rpartition("/")[2] == "condemned")
    repository.storage.files[note].data[:] = b"?"
    session = CheckSession(repository)
    assert [damaged in str(problem) for problem in session.problems] == [False, True]
    assert needed(session, 1, 3) == (1, 1)
    session.close()


def test_if_it_cannot_be_opened_nothing_is_left(repository, monkeypatch):
    def fail(directory, kinds):
        if directory == INDEX:
            raise StorageError("cannot list it")
        return names(directory, kinds)

    names = repository.storage.names
    monkeypatch.setattr(repository.storage, "names", fail)
    with pytest.raises(StorageError, match="cannot list it"):
        CheckSession(repository)
    monkeypatch.undo()
    assert living_holders(repository.storage) == frozenset()
