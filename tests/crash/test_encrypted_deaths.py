"""Killed at every file operation in an encrypted target: nothing is lost, and no key."""

import shutil
from functools import partial

import anyio
import pytest

from fakes.encrypted_place import EncryptedPlace
from fakes.known_keys import QUICK
from fakes.small_repository import content
from fakes.sudden_death import killed_everywhere
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository import (
    Kind,
    find_repository,
    key_of_file,
    key_of_passphrase,
    list_key_slots,
    open_key_changes,
    prune_repository,
)

OLD, NEW = [1, 2, 3, 0, 4], [2, 5, 6]
PASSPHRASE = "correct horse"  # noqa: S105 -- of the test alone


def prune(place):
    repository = find_repository(place.location)
    prune_repository(repository, partial(list_maps, repository.storage), lambda: None)


def each_death(directory, work):
    """Give the place after each death of some work, made anew from one beginning."""
    begun = EncryptedPlace(directory / "begun")
    begun.make()
    anyio.run(begun.back_up, "web", "old", OLD)
    open_key_changes(begun.location, key_of_file(begun.key_file)).add(
        key_of_passphrase(PASSPHRASE), "admin", QUICK
    )
    place = directory / "place"

    def renew():
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(begun.directory, place)

    renew()
    deaths = 0
    for _ in killed_everywhere(lambda: work(EncryptedPlace(place))):
        deaths += 1
        yield EncryptedPlace(place)
        renew()
    assert deaths > 5, "it was not killed where it does something"


@pytest.mark.timeout(300)
def test_a_backup_that_dies_anywhere_hurts_no_other(tmp_path):
    for place in each_death(tmp_path, lambda it: anyio.run(it.back_up, "web", "new", NEW)):
        assert anyio.run(place.restored, "web", "old") == content(OLD)
        storage = find_repository(place.location).storage
        if "new_vda.raw.map" in storage.names("web", {Kind.FILE}):
            assert anyio.run(place.restored, "web", "new") == content(NEW)
        prune(place)
        assert anyio.run(place.restored, "web", "old") == content(OLD)
        anyio.run(place.back_up, "web", "next", NEW)
        assert anyio.run(place.restored, "web", "next") == content(NEW)


@pytest.mark.timeout(300)
def test_a_prune_that_dies_anywhere_loses_nothing(tmp_path):
    def remove_and_prune(place):
        anyio.run(place.back_up, "web", "kept", [1, 7])
        find_repository(place.location).storage.remove("web/old_vda.raw.map")
        prune(place)

    for place in each_death(tmp_path, remove_and_prune):
        storage = find_repository(place.location).storage
        names = storage.names("web", {Kind.FILE})
        for name, chunks in (("old", OLD), ("kept", [1, 7])):
            if f"{name}_vda.raw.map" in names:
                assert anyio.run(place.restored, "web", name) == content(chunks)
        prune(place)


@pytest.mark.timeout(300)
def test_a_rotation_that_dies_anywhere_leaves_every_key_good(tmp_path):
    def rotate(place):
        key = key_of_file(place.key_file)
        open_key_changes(place.location, key).rotate([key_of_passphrase(PASSPHRASE)])

    for place in each_death(tmp_path, rotate):
        for key in (key_of_file(place.key_file), key_of_passphrase(PASSPHRASE)):
            assert open_key_changes(place.location, key).generations in {1, 2}
        assert anyio.run(place.restored, "web", "old") == content(OLD)
        anyio.run(place.back_up, "web", "new", NEW)
        assert anyio.run(place.restored, "web", "new") == content(NEW)
        changes = open_key_changes(place.location, key_of_file(place.key_file))
        changes.rotate([key_of_passphrase(PASSPHRASE)])
        assert len(list_key_slots(place.location).slots) == 2
        assert anyio.run(place.restored, "web", "new") == content(NEW)
