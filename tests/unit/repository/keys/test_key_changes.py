"""storage/key_changes.py: who may open a repository, and from when on."""

import itertools

import pytest

from fakes.failing_storage import FailingStorage
from fakes.known_keys import QUICK
from fakes.memory_storage import MemoryStorage
from virtbackup_async.errors import (
    ConfigError,
    LockHeldError,
    NewerVersionError,
    NotFoundError,
    StorageError,
)
from virtbackup_async.repository.keys.keyring import Keys
from virtbackup_async.repository.keys.secret import Secret
from virtbackup_async.repository.keys.slots import SlotKind
from virtbackup_async.repository.storage import description
from virtbackup_async.repository.storage.key import Key, check_new_passphrase, passphrase_of
from virtbackup_async.repository.storage.key_changes import KeyChanges
from virtbackup_async.repository.storage.key_file import make_key_file
from virtbackup_async.repository.storage.key_slots import list_slots, open_slot
from virtbackup_async.repository.storage.layout import KEYS, REPOSITORY_FILE
from virtbackup_async.repository.storage.leases import take_prune_lease
from virtbackup_async.repository.storage.repository_file import find_in, make_in
from virtbackup_async.repository.storage.this_host import host_name

PASSPHRASE = Key.of_passphrase("correct horse")


@pytest.fixture
def storage():
    return MemoryStorage()


@pytest.fixture
def key_file(tmp_path):
    return tmp_path / "key"


@pytest.fixture
def key(storage, key_file):
    make_in(storage, key_file)
    return Key.of_key_file(key_file)


def changes_of(storage, key):
    found = description.decode(storage.read(REPOSITORY_FILE, 9999), "repository")
    return KeyChanges(storage, key, found)


def names_in(storage):
    return {named.name for named in list_slots(storage)[0]}


def test_each_kind_of_key_is_added_and_opens_the_same(storage, key, tmp_path):
    changes = changes_of(storage, key)
    changes.add(PASSPHRASE, "admin", QUICK)
    changes.add_key_file(tmp_path / "other", "other host")
    _, paper = changes.add_recovery("safe")
    found, damaged = list_slots(storage)
    assert not damaged
    labels = {(each.slot.kind.value, each.slot.label) for each in found}
    assert labels - {("key-file", host_name())} == {
        ("key-file", "other host"), ("passphrase", "admin"), ("recovery", "safe"),
    }  # fmt: skip
    (keys,) = {named.slot.keys for named in found}
    others = [PASSPHRASE, Key(SlotKind.RECOVERY, paper), Key.of_key_file(tmp_path / "other")]
    for other in others:
        assert Keys(open_slot(storage, other.kind, other.open)[1]).id == keys
    repository = find_in(storage, tmp_path / "other")
    assert repository == find_in(storage, tmp_path / "key")


def test_a_key_is_added_once_and_with_a_label(storage, key, key_file):
    changes = changes_of(storage, key)
    changes.add(PASSPHRASE, "admin", QUICK)
    before = names_in(storage)
    with pytest.raises(ConfigError, match="already"):
        changes.add(Key.of_passphrase("correct horse"), "again", QUICK)
    with pytest.raises(ConfigError, match="already"):
        changes.add_key_file(key_file, "again")
    for label in ("", "x" * 101, "a\nb", "\x1b[31m"):
        with pytest.raises(ConfigError, match="label"):
            changes.add_key_file(key_file.parent / "new", label)
    assert names_in(storage) == before
    assert not (key_file.parent / "new").exists()


def test_a_removed_key_opens_nothing_and_nobody_removes_his_own(storage, key):
    changes = changes_of(storage, key)
    name = changes.add(PASSPHRASE, "admin", QUICK)
    (own,) = names_in(storage) - {name}
    with pytest.raises(ConfigError, match="its own"):
        changes.remove(own)
    with pytest.raises(NotFoundError):
        changes.remove("none")
    assert changes.remove(name).slot.label == "admin"
    with pytest.raises(ConfigError, match="the passphrase opens no key slot"):
        changes_of(storage, PASSPHRASE)


def test_a_wrong_key_changes_nothing(storage, key):
    before = {name: bytes(file.data) for name, file in storage.files.items()}
    for wrong in (PASSPHRASE, Key(SlotKind.KEY_FILE, Secret(b"w" * 32)),
                  Key(SlotKind.RECOVERY, Secret(b"w" * 32))):  # fmt: skip
        with pytest.raises(ConfigError) as error:
            changes_of(storage, wrong)
        assert error.value.exit_code == 2
    assert {name: bytes(file.data) for name, file in storage.files.items()} == before


def test_after_a_rotation_all_holders_read_old_and_new(storage, key, key_file):
    changes = changes_of(storage, key)
    changes.add(PASSPHRASE, "admin", QUICK)
    _, paper = changes.add_recovery("safe")
    old_slots = {name: bytes(storage.files[f"{KEYS}/{name}"].data) for name in names_in(storage)}
    old_description = storage.read(REPOSITORY_FILE, 9999)
    old = find_in(storage, key_file)
    old.storage.make_directory("web")
    old.storage.put_new("web/a", b"old")
    assert changes.rotate([PASSPHRASE]) == changes.generations == 2
    assert not names_in(storage) & set(old_slots)
    new = find_in(storage, key_file)
    new.storage.put_new("web/b", b"new")
    assert (new.storage.read("web/a", 9), new.storage.read("web/b", 9)) == (b"old", b"new")
    assert changes.rotate([PASSPHRASE]) == 3
    for holder in (key, PASSPHRASE, Key(SlotKind.RECOVERY, paper)):
        assert changes_of(storage, holder).generations == 3
    # Whoever brings an old slot back is noticed, unless it is the whole store that is old.
    for name in names_in(storage):
        storage.remove(f"{KEYS}/{name}")
    for name, data in old_slots.items():
        storage.put_new(f"{KEYS}/{name}", data)
    with pytest.raises(ConfigError, match="older than the keys"):
        find_in(storage, key_file)
    # Whoever kept an old slot and its key reads what is old, and its names.
    storage.replace(REPOSITORY_FILE, old_description)
    thief = find_in(storage, key_file).storage
    assert thief.read("web/a", 9) == b"old"
    with pytest.raises(NewerVersionError, match="not known"):
        thief.read("web/b", 9)


def test_a_rotation_needs_every_key_and_to_be_alone(storage, key):
    changes = changes_of(storage, key)
    changes.add(PASSPHRASE, "admin", QUICK)
    before = names_in(storage)
    with pytest.raises(ConfigError, match="passphrase, admin"):
        changes.rotate()
    lease = take_prune_lease(storage)
    with pytest.raises(LockHeldError):
        changes.rotate([PASSPHRASE])
    lease.close()
    assert names_in(storage) == before
    assert changes_of(storage, key).generations == 1


def test_two_that_rotate_one_after_the_other_lose_no_generation(storage, key):
    first, second = changes_of(storage, key), changes_of(storage, key)
    first.rotate()
    assert second.rotate() == 3
    assert changes_of(storage, key).generations == 3


@pytest.mark.parametrize("is_done", [False, True], ids=["refused", "answer lost"])
def test_whatever_fails_in_a_rotation_every_holder_still_opens(key_file, is_done):
    for failing in itertools.count():
        storage, calls = MemoryStorage(), itertools.count()
        make_in(storage, key_file)
        key = Key.of_key_file(key_file)
        changes_of(storage, key).add(PASSPHRASE, "admin", QUICK)

        def fail(verb, calls=calls, failing=failing):
            if next(calls) == failing:
                raise StorageError(f"{verb} failed")

        watched = FailingStorage(storage, **{"after" if is_done else "before": fail})
        try:
            changes_of(watched, key).rotate([PASSPHRASE])
        except (StorageError, LockHeldError):
            pass
        else:
            assert failing > 4
            return
        for holder in (key, PASSPHRASE):
            assert changes_of(storage, holder).generations in {1, 2}
        storage.now_s += 2 * 3600
        for file in storage.files.values():
            file.is_locked = False
        changes = changes_of(storage, key)
        assert changes.rotate([PASSPHRASE]) == changes.generations
        assert changes_of(storage, PASSPHRASE).generations == changes.generations


def test_a_passphrase_is_the_same_however_it_is_typed():
    assert passphrase_of("caf\u00e9") == passphrase_of("cafe\u0301")
    assert passphrase_of("a") != passphrase_of("b")
    for short in ("", "1234567", "e\u0301" * 7):
        with pytest.raises(ConfigError, match="too short"):
            check_new_passphrase(short)
    check_new_passphrase("12345678")


def test_damaged_slots_are_said(storage, key, tmp_path):
    name = changes_of(storage, key).add(PASSPHRASE, "admin", QUICK)
    storage.files[f"{KEYS}/{name}"].data[5] ^= 1
    assert [error.message for error in list_slots(storage)[1]]
    changes_of(storage, key)
    with pytest.raises(ConfigError, match="damaged"):
        changes_of(storage, PASSPHRASE)
    make_key_file(tmp_path / "wrong")
    with pytest.raises(ConfigError, match="damaged"):
        find_in(storage, tmp_path / "wrong")
