"""check/without_key.py: damage to an encrypted repository is found where no key is."""

import subprocess
import sys
from contextlib import closing

import pytest

from fakes.known_keys import QUICK
from fakes.small_repository import content
from virtbackup_async.errors import CorruptError, NotFoundError
from virtbackup_async.model.storage_location import LOCAL, StorageLocation
from virtbackup_async.repository import (
    ChunkWriters,
    check_without_key,
    key_of_file,
    key_of_passphrase,
    make_repository,
    open_key_changes,
)
from virtbackup_async.repository.format.chunks import chunk_id


@pytest.fixture
def place(tmp_path):
    """The directory of an encrypted target with two packs, and nothing of its key."""
    location = StorageLocation(LOCAL, str(tmp_path), key_file=tmp_path.with_name("key"))
    repository = make_repository(location)
    for number in (1, 2):
        with closing(ChunkWriters().open(repository, 1)) as writer:
            chunk = content([number])
            writer.add({writer.id_of(chunk_id(chunk)): memoryview(chunk)})
            writer.publish()
    changes = open_key_changes(location, key_of_file(location.key_file))
    changes.add(key_of_passphrase("correct horse"), "admin", QUICK)
    location.key_file.unlink()
    return tmp_path


def packs_in(place):
    return sorted((place / ".virtbackup-repository" / "packs").rglob("*.pack"))


def checked(place):
    return list(check_without_key(StorageLocation.of(place), lambda: None))


def test_what_is_good_is_read_in_full(place):
    found = checked(place)
    assert [each.where for each in found] == list(map(str, packs_in(place)))
    assert [each.error for each in found] == [None, None]
    assert [each.size_bytes for each in found] == [path.stat().st_size for path in packs_in(place)]


@pytest.mark.parametrize("at", [0, 20, 40, 64, 100, 200, -1, -10, -20, -30, -40])
def test_a_bit_that_changed_anywhere_is_found(place, at):
    path = packs_in(place)[0]
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    one, other = checked(place)
    assert one.error is not None
    assert other.error is None


@pytest.mark.parametrize("change", ["cut", "empty", "longer", "other"])
def test_another_content_is_found(place, change):
    path, other = packs_in(place)
    data = path.read_bytes()
    contents = {"cut": data[:-40], "empty": b"", "longer": data + b"x", "other": other.read_bytes()}
    path.write_bytes(contents[change])
    assert [each.error is None for each in checked(place)] == [False, True]


def test_a_damaged_slot_is_found(place):
    slot = next((place / ".virtbackup-repository" / "keys").iterdir())
    slot.write_bytes(b"x" + slot.read_bytes()[1:])
    assert [each.error is None for each in checked(place)] == [True, True, False]


def test_packs_of_a_writer_that_may_be_running_are_left_out(place):
    one, other = packs_in(place)
    (place / ".virtbackup-repository" / "leases" / one.name[:24]).write_bytes(b"")
    one.write_bytes(b"begun")
    assert [each.where for each in checked(place)] == [str(other)]


def test_only_an_encrypted_repository_is_checked(tmp_path):
    with pytest.raises(NotFoundError):
        checked(tmp_path)
    make_repository(StorageLocation.of(tmp_path))
    with pytest.raises(NotFoundError, match="not encrypted"):
        checked(tmp_path)


def test_a_damaged_repository_file_is_said(place):
    (place / ".virtbackup-repository" / "repository").write_bytes(b"x")
    with pytest.raises(CorruptError):
        checked(place)


def test_the_command_says_what_is_damaged_and_writes_nothing(place):
    def run(code):
        argv = [sys.executable, "-m", "virtbackup_async", "verify", "--without-key", "--target"]
        ended = subprocess.run([*argv, place], capture_output=True, text=True, check=False)
        assert ended.returncode == code, ended.stderr
        return ended.stdout

    assert "packs read: 2" in run(0)
    path = packs_in(place)[0]
    path.write_bytes(path.read_bytes()[:-1])
    before = {each: each.stat().st_mtime_ns for each in place.rglob("*")}
    assert str(path) in run(13)
    assert {each: each.stat().st_mtime_ns for each in place.rglob("*")} == before
