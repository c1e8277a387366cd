"""Encrypted repositories: what the store sees, who opens them, and what is noticed."""

import shutil
from contextlib import closing
from functools import partial
from itertools import permutations

import pytest

from fakes.encrypted_place import EncryptedPlace
from fakes.small_repository import content
from fakes.sudden_death import killed_everywhere
from virtbackup_async.errors import ConfigError, CorruptError, VirtBackupError
from virtbackup_async.model.storage_location import LOCAL, StorageLocation
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository import (
    find_repository,
    list_key_slots,
    make_repository,
    open_storage,
    prune_repository,
    reindex_packs,
    repair_repository_file,
)
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.format.chunks import chunk_id
from virtbackup_async.repository.keys.keyring import Keys
from virtbackup_async.repository.storage.key_file import make_key_file
from virtbackup_async.repository.storage.sealed import is_clear

IMAGES = {"1": [1, 2, 3, 0, 4], "2": [1, 2, 5, 0, 4]}
REPOSITORY = ".virtbackup-repository"


@pytest.fixture
async def place(tmp_path):
    made = EncryptedPlace(tmp_path / "one")
    made.make()
    for domain, numbers in (("web", 0), ("db", 10)):
        for name, chunks in IMAGES.items():
            await made.back_up(domain, name, [n and n + numbers for n in chunks])
    return made


def on_step():
    """Go on."""


async def test_what_is_stored_comes_back(place):
    assert await place.restored("web", "1") == content(IMAGES["1"])
    assert await place.restored("db", "2") == content([11, 12, 15, 0, 14])
    repository = find_repository(place.location)
    maps = partial(list_maps, repository.storage)
    assert [file.name for file in maps()] == [
        "db/1_vda.raw.map", "db/2_vda.raw.map", "web/1_vda.raw.map", "web/2_vda.raw.map",
    ]  # fmt: skip
    repository.storage.remove("web/2_vda.raw.map")
    prune_repository(repository, maps, on_step)
    assert await place.restored("web", "1") == content(IMAGES["1"])


async def test_the_store_sees_neither_names_nor_content_nor_ids(place):
    stored = b"".join(path.read_bytes() for path in place.files())
    names = "\n".join(str(path.relative_to(place.target)) for path in place.target.rglob("*"))
    steps = {step for name in names.split("\n") for step in name.split("/")}
    assert not steps & {"web", "db", "condemned", "damaged"}
    for word in ("vda.raw", "_web", "1_vda"):
        assert word not in names
        assert word.encode() not in stored
    for number in range(1, 16):
        chunk = content([number])
        assert chunk[:32] not in stored
        assert chunk_id(chunk) not in stored
        assert find_repository(place.location).sealing.id_of(chunk_id(chunk)) not in stored
    clear = {name for name in names.split("\n") if is_clear(name)}
    assert {name.split("/")[1] for name in clear if "/" in name} == {
        "repository", "keys", "packs", "index", "leases",
    }  # fmt: skip


def tree(place):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in place.files()}


@pytest.mark.parametrize("call", [find_repository, make_repository, open_storage,
                                  repair_repository_file])  # fmt: skip
def test_a_wrong_key_is_refused_and_nothing_is_written(place, tmp_path, call):
    make_key_file(tmp_path / "wrong")
    before = tree(place)
    for key_file in (tmp_path / "wrong", tmp_path / "missing"):
        location = StorageLocation(LOCAL, str(place.target), key_file=key_file)
        with pytest.raises(ConfigError) as error:
            call(location)
        assert error.value.exit_code == 2
    assert tree(place) == before
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("call", [find_repository, make_repository, repair_repository_file])
def test_a_repository_without_its_key_is_refused(place, call):
    before = tree(place)
    with pytest.raises(ConfigError, match="repository is encrypted"):
        call(StorageLocation.of(place.target))
    assert tree(place) == before


@pytest.mark.parametrize("call", [find_repository, make_repository, open_storage,
                                  repair_repository_file])  # fmt: skip
def test_a_store_that_is_not_encrypted_is_refused_where_it_should_be(tmp_path, call):
    place = EncryptedPlace(tmp_path)
    make_repository(StorageLocation.of(place.target))
    make_key_file(place.key_file)
    before = tree(place)
    with pytest.raises(ConfigError, match="not encrypted"):
        call(place.location)
    assert tree(place) == before


def test_a_repository_is_opened_once_and_again_when_something_changed(place, tmp_path):
    first = find_repository(place.location)
    assert find_repository(place.location) is first
    assert open_storage(place.location) is first.storage
    path = place.target / REPOSITORY / "repository"
    shutil.copy(path, tmp_path / "copy")
    path.unlink()
    with pytest.raises(CorruptError, match="missing"):
        find_repository(place.location)
    shutil.copy(tmp_path / "copy", path)
    again = find_repository(place.location)
    assert again is not first
    assert again == first
    place.key_file.chmod(0o640)
    with pytest.raises(ConfigError, match="others may use"):
        open_storage(place.location)
    place.key_file.chmod(0o600)
    assert find_repository(place.location) == first
    place.key_file.unlink()
    with pytest.raises(ConfigError, match="missing key file"):
        find_repository(place.location)


def test_nothing_is_opened_where_no_repository_is(tmp_path):
    place = EncryptedPlace(tmp_path)
    assert find_repository(place.location) is None
    assert repair_repository_file(place.location) is None
    with pytest.raises(VirtBackupError, match="no repository"):
        open_storage(place.location)
    assert place.files() == []
    assert not place.key_file.exists()


def test_a_lost_repository_file_is_written_again(place):
    before = find_repository(place.location)
    (place.target / REPOSITORY / "repository").unlink()
    for look in (make_repository, find_repository, list_key_slots):
        with pytest.raises(CorruptError, match="missing"):
            look(place.location)
    with pytest.raises(ConfigError):
        repair_repository_file(StorageLocation.of(place.target))
    assert repair_repository_file(place.location) == before
    assert find_repository(place.location) == before
    assert reindex_packs(before, on_step) == (0, 0)


def test_a_repository_that_was_half_made_is_made_by_the_next(tmp_path):
    place = EncryptedPlace(tmp_path / "place")
    for _ in killed_everywhere(lambda: make_repository(place.location)):
        made = make_repository(place.location)
        assert find_repository(place.location) == made == make_repository(place.location)
        shutil.rmtree(place.directory)
        place.target.mkdir(parents=True)


def test_of_two_that_make_a_repository_one_is_first(tmp_path, monkeypatch):
    place = EncryptedPlace(tmp_path)
    real = Keys.__init__
    others = []

    def keys(self, *args, **kwargs):
        if not others:
            others.append(None)
            others.append(make_repository(place.location))
        real(self, *args, **kwargs)

    monkeypatch.setattr(Keys, "__init__", keys)
    made = make_repository(place.location)
    assert made == others[1]
    assert len(place.files(f"{REPOSITORY}/keys")) == 1


# What somebody who can write to the store can do.


async def is_noticed(place):
    """Whether anything shows when all backups are restored and the repository is checked."""
    try:
        repository = find_repository(place.location)
        prune_repository(repository, partial(list_maps, repository.storage), on_step)
        for domain, numbers in (("web", 0), ("db", 10)):
            for name, chunks in IMAGES.items():
                expected = content([n and n + numbers for n in chunks])
                assert await place.restored(domain, name) == expected, "wrong data was believed"
    except (CorruptError, ConfigError):
        return True
    return False


def kinds_of_files(place):
    """The files of each kind."""
    maps = [path for path in place.files() if REPOSITORY not in path.parts]
    return {
        "map": maps,
        "segment": place.files(f"{REPOSITORY}/index"),
        "pack": place.files(f"{REPOSITORY}/packs"),
    }


@pytest.mark.parametrize("kind", ["map", "segment", "pack"])
async def test_a_file_in_place_of_another_valid_one_is_noticed(place, kind):
    files = kinds_of_files(place)[kind]
    assert len(files) == 4
    for one, other in permutations(files, 2):
        kept = one.read_bytes()
        one.write_bytes(other.read_bytes())
        assert await is_noticed(place), (one, other)
        one.write_bytes(kept)
    assert not await is_noticed(place)


@pytest.mark.parametrize("kind", ["map", "segment", "pack", "repository", "slot"])
async def test_a_file_that_is_cut_off_is_noticed(place, kind):
    files = kinds_of_files(place) | {
        "repository": [place.target / REPOSITORY / "repository"],
        "slot": place.files(f"{REPOSITORY}/keys"),
    }
    one = files[kind][0]
    kept = one.read_bytes()
    # A pack's tail is for those without a key; all of its blobs are there.
    least = 33 if kind == "pack" else 1
    for length in {0, 1, 47, 48, 64, len(kept) // 2, len(kept) - least}:
        one.write_bytes(kept[:length])
        assert await is_noticed(place), length
        one.write_bytes(kept)
    assert not await is_noticed(place)


@pytest.mark.parametrize(
    "change",
    [{"chunk_bytes": 4096}, {"digest": "blake3"}, {"id": "00" * 16}, {"encryption": None},
     {"version": 1}, {"x": 1}, {"encryption": {"cipher": "none", "keys": "00" * 16}},
     {"encryption": {"cipher": "aes-256-gcm", "keys": "00" * 16}},
     {"encryption": {"cipher": "aes-256-gcm", "keys": "00" * 16, "generations": 1}},
     {"encryption": {"cipher": "aes-256-gcm", "keys": "00" * 16, "generations": "1"}},
     {"encryption": {"cipher": "aes-256-gcm", "generations": 1}}, {"encryption": []}],
)  # fmt: skip
async def test_a_repository_file_that_somebody_else_wrote_is_noticed(place, change):
    path = place.target / REPOSITORY / "repository"
    facts = sealed_json.loads(path.read_bytes(), "repository")
    path.write_bytes(sealed_json.dumps({**facts, **change}))
    assert await is_noticed(place)


async def test_a_repository_in_place_of_another_is_refused(place, tmp_path):
    other = EncryptedPlace(tmp_path / "other")
    shutil.copy(place.key_file, other.key_file)
    other.make()
    # The keys of the one, the description of the other, and the other way round.
    for name in ("repository", "keys"):
        mixed = EncryptedPlace(tmp_path / f"mixed-{name}")
        shutil.copy(place.key_file, mixed.key_file)
        shutil.copytree(place.target, mixed.target, dirs_exist_ok=True)
        source, target = other.target / REPOSITORY / name, mixed.target / REPOSITORY / name
        if name == "keys":
            shutil.rmtree(target)
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
        with pytest.raises(ConfigError):
            find_repository(mixed.location)


async def test_files_of_one_repository_are_no_files_of_another_with_the_same_key_file(
    place, tmp_path
):
    other = EncryptedPlace(tmp_path / "other")
    shutil.copy(place.key_file, other.key_file)
    other.make()
    for domain in ("web", "db"):
        for name in IMAGES:
            await other.back_up(domain, name, [7, 8])
    for kind, files in kinds_of_files(place).items():
        foreign = kinds_of_files(other)[kind]
        for one, strange in zip(files, foreign, strict=False):
            kept = one.read_bytes()
            one.write_bytes(strange.read_bytes())
            assert await is_noticed(place), kind
            one.write_bytes(kept)


async def test_a_second_copy_of_a_file_under_another_name_changes_nothing(place):
    for kind, (file, *_) in kinds_of_files(place).items():
        copy = file.with_name(f"{file.name[:-6]}000000")
        if kind == "pack":
            copy = place.target / REPOSITORY / "packs" / "00" / f"{'00' * 16}.pack"
            copy.parent.mkdir(exist_ok=True)
        shutil.copy(file, copy)
    repository = find_repository(place.location)
    assert repository.storage.strangers("") == []
    assert len(repository.storage.strangers(f"{REPOSITORY}/index")) == 1
    assert not await is_noticed(place)


async def test_a_plain_file_is_never_believed(place):
    storage = find_repository(place.location).storage
    with closing(storage.open("web/1_vda.raw.map")) as file:
        plain = file.read(file.size_bytes, 0)
    storage._inner.replace(storage._sealed("web/1_vda.raw.map"), plain)
    with pytest.raises(CorruptError):
        await place.restored("web", "1")
