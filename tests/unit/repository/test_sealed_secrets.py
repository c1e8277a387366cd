"""What opens a sealed repository, and what does not: the files and the memory of its host."""

import random

import pytest
from msgspec.structs import replace

from fakes.encrypted_place import EncryptedPlace
from fakes.sealed_place import SealedPlace, opening, reachable
from virtbackup_async.errors import ConfigError, NewerVersionError
from virtbackup_async.repository import (
    find_repository,
    hold_key,
    make_repository,
)
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.keys.keyring import Keys
from virtbackup_async.repository.keys.secret import Secret
from virtbackup_async.repository.keys.slots import open_with_key_file
from virtbackup_async.repository.storage import description, key_slots
from virtbackup_async.repository.storage.key import Key
from virtbackup_async.repository.storage.layout import DIRECTORY, REPOSITORY_FILE
from virtbackup_async.repository.storage.local import LocalStorage
from virtbackup_async.repository.storage.public_file import read_public_file

FIRST = [1, 2, 3, 0, 4]


@pytest.fixture
async def place(tmp_path):
    made = SealedPlace(tmp_path / "one")
    made.make()
    await made.back_up("web", "1", FIRST)
    return made


def secrets_of(place):
    """All key material that the host's key file opens, and everything that follows from it."""
    secret = Key.of_key_file(place.key_file).secret
    storage = LocalStorage(place.target, DIRECTORY)
    (slot,) = [
        each.slot for each in key_slots.list_slots(storage)[0] if each.slot.kind == "key-file"
    ]
    masters = open_with_key_file(slot, secret)
    yield from (secret.reveal(), *(master.reveal() for master in masters))
    for can_read in (True, False):
        yield from materials(reachable(Keys(masters, can_read=can_read)))
    purposes = ("pack", "keys of packs", "key file", "heads of blobs", "files", "pack key")
    context = "virtbackup-async 2026-11 "
    for each in (secret, *masters):
        for purpose in purposes:
            for before in ("repository 2: ", "run key: ", "recovery key", ""):
                yield each.derive(context + before + purpose)
                yield each.derive(context + before + purpose, 64)


def materials(values):
    """The secrets among objects: bytes, and ciphers, which show no bytes of theirs."""
    for value in values:
        if isinstance(value, Secret):
            yield value.reveal()
        elif type(value).__name__ in {"AESGCM", "AESSIV", "bytes"}:
            yield value


async def test_all_that_the_key_file_opens_opens_no_chunk(place):
    heads = Keys([Secret(next(masters_of(place)))]).newest.heads
    known = [*secrets_of(place)]
    files = [path.read_bytes() for path in place.directory.glob("*") if path.is_file()]
    known += [data[at : at + 32] for data in files for at in range(0, len(data) - 32, 32)]
    assert len(known) > 50
    packs = place.packs()
    assert packs
    for pack in packs:
        assert opening(known, pack, heads) == []


def masters_of(place):
    secret = Key.of_key_file(place.key_file).secret
    storage = LocalStorage(place.target, DIRECTORY)
    for named in key_slots.list_slots(storage)[0]:
        for master in (
            named.slot.kind == "key-file" and open_with_key_file(named.slot, secret)
        ) or ():
            yield master.reveal()


async def test_what_is_tried_opens_the_chunks_of_a_repository_that_is_not_sealed(tmp_path):
    """The tests around this one would find a key, if there were one."""
    unsealed = EncryptedPlace(tmp_path / "unsealed")
    unsealed.make()
    await unsealed.back_up("web", "1", FIRST)
    heads = Keys([Secret(next(masters_of(unsealed)))]).newest.heads
    (pack,) = [path.read_bytes() for path in unsealed.files(f"{DIRECTORY}/packs")]
    assert opening([*secrets_of(unsealed)], pack, heads)


async def test_the_memory_of_a_finished_run_opens_no_chunk(place):
    """What is left of a run: the sealing, with all that it holds."""
    sealing = find_repository(place.location).sealing
    heads = Keys([Secret(next(masters_of(place)))]).newest.heads
    known = [*materials(reachable(sealing)), *secrets_of(place)]
    for pack in place.packs():
        assert opening(known, pack, heads) == []


async def test_the_memory_of_a_run_opens_the_pack_that_it_fills_and_none_before(place):
    """The test above finds what there is to find: with the key of the pack, it opens."""
    repository = find_repository(place.location)
    heads = Keys([Secret(next(masters_of(place)))]).newest.heads
    sealing = repository.sealing
    blobs = []
    for _ in range(2):
        data = random.Random(1).randbytes(1000)
        id_ = sealing.id_of(bytes(32))
        blobs.append(bytes(64) + bytes(sealing.seal(id_, memoryview(data), data)))
        sealing._pack_key.length_bytes = 1 << 40  # the pack is full
    known = [*materials(reachable(sealing)), *secrets_of(place)]
    assert opening(known, blobs[0], heads) == []
    assert len(opening(known, blobs[1], heads)) == 1
    sealing.forget()
    assert opening([*materials(reachable(sealing))], blobs[1], heads) == []


async def test_each_pack_takes_the_recovery_key(place):
    """Another recovery key opens nothing, even with a repository file that names it."""
    other = SealedPlace(place.directory / "other")
    repository = find_repository(place.location)
    assert repository.sealing.can_read is False
    location = replace(place.location, sealed_for=other.location.sealed_for)
    with pytest.raises(ConfigError, match="another recovery key"):
        find_repository(location)
    with pytest.raises(ConfigError, match="opens no key slot"):
        await place.restored("web", "1", _held(other, place))


def _held(other, place):
    return replace(place.location, held_key=hold_key(other.paper))


def rewritten(place, change):
    """Write the repository file as somebody with the host's keys can, authentic."""
    path = place.target / REPOSITORY_FILE
    facts = sealed_json.loads(path.read_bytes(), "repository")
    keys = Keys([Secret(next(masters_of(place)))], can_read=False)
    facts = change({name: value for name, value in facts.items() if name != "mac"})
    mac = description._mac(facts, keys.description.reveal())
    path.write_bytes(sealed_json.dumps({**facts, "mac": mac}))


async def test_somebody_with_the_keys_of_a_host_cannot_have_others_seal_for_them(place, tmp_path):
    thief = SealedPlace(tmp_path / "thief")
    public = read_public_file(thief.location.sealed_for).hex()
    changes = {
        "for another key": lambda facts: {
            **facts, "encryption": {**facts["encryption"], "public": public}
        },
        "for nobody": lambda facts: {
            **facts, "version": 2, "encryption": {
                name: value for name, value in facts["encryption"].items() if name != "public"
            },
        },
    }  # fmt: skip
    before = (place.target / REPOSITORY_FILE).read_bytes()
    for what, change in changes.items():
        rewritten(place, change)
        for call in (find_repository, make_repository):
            with pytest.raises(ConfigError) as error:
                call(place.location)
            assert "somebody" in error.value.hint, what
        (place.target / REPOSITORY_FILE).write_bytes(before)
    assert find_repository(place.location) is not None


@pytest.mark.parametrize("change", [{"public": None}, {"public": ""}, {"public": "zz"}, {}])
async def test_a_program_that_knows_no_sealed_repositories_writes_into_none(place, change):
    def changed(facts):
        return {
            **facts,
            "encryption": {**facts["encryption"], **change},
            "version": 3 + (not change),
        }

    rewritten(place, changed)
    with pytest.raises(NewerVersionError):
        find_repository(place.location)
