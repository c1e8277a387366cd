"""Object Lock: signing as AWS describes it, and the locks of a real store."""

import json
from datetime import UTC, datetime

import pytest

from locked_bucket import locked_place
from object_server import KEYS, set_credentials
from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import BucketLock, extend_locks, lock_of_bucket, open_storage
from virtbackup_async.repository.storage.layout import LEASES
from virtbackup_async.repository.storage.objects import opened_locks
from virtbackup_async.repository.storage.objects.opened_locks import open_locks
from virtbackup_async.repository.storage.objects.signing import Keys, SignedRequest, sign

DAY_S = 86400
LEASE = f"{LEASES}/x"


def test_requests_are_signed_as_in_awss_own_example():
    """`GET Bucket Lifecycle` of the page that ``signing.py`` names."""
    keys = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
    request = SignedRequest("GET", "examplebucket.s3.amazonaws.com", "/", "lifecycle")
    headers = sign(request, keys, datetime(2013, 5, 24, tzinfo=UTC))
    assert headers["authorization"].endswith(
        "Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    )
    assert "wJalr" not in repr(keys)
    assert "x-amz-security-token" in sign(request, Keys("a", "b", "c", "token"), datetime.now(UTC))


@pytest.fixture
def locked(object_server, monkeypatch):
    set_credentials(monkeypatch)
    return locked_place(object_server)


def test_the_lock_of_a_bucket_is_read(locked, object_server):
    assert lock_of_bucket(locked) == BucketLock("COMPLIANCE", 8 * DAY_S)
    plain = StorageLocation("s3", "tests/x", endpoint=object_server.endpoint)
    assert lock_of_bucket(plain) is None
    assert lock_of_bucket(locked_place(object_server, retention=False)) == BucketLock()
    assert lock_of_bucket(StorageLocation.of("/t")) is None


def test_files_are_locked_by_the_bucket_and_for_longer_by_the_keeper(locked):
    storage, locks = open_storage(locked), open_locks(locked)
    names = [f"web/{number:02}.json" for number in range(20)] + ["ä/ö+~ 1.map"]
    for name in names:
        storage.put_new(name, b"{}")
    now_s = storage.clock("leases")
    until_s = now_s + 30 * DAY_S
    (first, *_) = names
    assert locks.of_object(first).until_s == pytest.approx(now_s + 8 * DAY_S, abs=60)
    assert locks.extend([*names, "web/gone.json"], "COMPLIANCE", until_s) == len(names) + 1
    for name in (first, names[-1]):
        assert locks.of_object(name).until_s == pytest.approx(until_s, abs=1)
    assert locks.of_object("web/gone.json") is None
    # A lock is never shortened: that it is longer already is no error.
    assert locks.extend([first], "COMPLIANCE", until_s - DAY_S) == 1
    assert locks.of_object(first).until_s == pytest.approx(until_s, abs=1)


def test_a_removed_file_is_hidden_and_its_data_stays(locked):
    storage, locks = open_storage(locked), open_locks(locked)
    storage.put_new("web/a.json", b"the good one")
    storage.remove("web/a.json")
    assert not storage.exists("web/a.json")
    versions = locks.send("GET", None, "versions")
    assert "web/a.json</Key><VersionId>" in versions


def test_only_what_is_old_enough_is_locked_again_and_only_when_it_is_time(locked, monkeypatch):
    storage, locks = open_storage(locked), open_locks(locked)
    storage.put_new("web/a.json", b"{}")
    storage.put_new(LEASE, b"")
    now_s = storage.clock(LEASES)
    month = BucketLock("COMPLIANCE", 30 * DAY_S)
    young = extend_locks(locked, month, None)
    assert young is not None
    assert young.objects == 0  # the default retention has locked them a moment ago
    assert extend_locks(locked, month, now_s + 29 * DAY_S) is None
    assert extend_locks(locked, month, now_s + 22 * DAY_S) is not None
    assert extend_locks(locked, month, now_s + 900 * DAY_S) is not None  # no note is right then
    monkeypatch.setattr(opened_locks, "_PATIENCE_SHARE", 0.0)
    extended = extend_locks(locked, month, None)
    assert extended is not None
    assert extended.objects == 1
    assert locks.of_object("web/a.json").until_s == pytest.approx(now_s + 30 * DAY_S, abs=60)
    assert locks.of_object(LEASE).until_s == pytest.approx(now_s + 8 * DAY_S, abs=60)


def test_without_keys_it_says_which_it_needs(locked, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    with pytest.raises(StorageError, match="no keys"):
        lock_of_bucket(locked)


def test_wrong_keys_are_an_error_that_shows_none(locked, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    with pytest.raises(StorageError, match="refuses the credentials") as raised:
        lock_of_bucket(locked)
    assert "another-secret" not in json.dumps(str(raised.value))
    assert KEYS[1] not in str(raised.value)
