"""keys/: nobody sees a secret, and one key says nothing of another."""

import copy
import io
import json
import logging
import pickle
import traceback
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.known_keys import MASTERS, QUICK, REPOSITORY_ID, keys
from virtbackup_async.errors import ConfigError
from virtbackup_async.repository.keys import recovery, slots, written_secret
from virtbackup_async.repository.keys.keyed_sealing import KeyedSealing
from virtbackup_async.repository.keys.keyring import Keys
from virtbackup_async.repository.keys.secret import Secret
from virtbackup_async.repository.keys.slots import Slot, SlotKind

PASSPHRASE = Secret(b"correct horse battery staple")
SALT = bytes(range(64, 96))


def slot_of(kind):
    return Slot(REPOSITORY_ID, keys().id, kind, "host", "2026-11-30T06:00:00Z", cost=QUICK)


def sealed_slots():
    """A slot of each kind, with what opens it."""
    paper = Secret(b"p" * 32)
    yield (
        slots.with_passphrase(slot_of(SlotKind.PASSPHRASE), MASTERS, PASSPHRASE, SALT),
        lambda slot: slots.open_with_passphrase(slot, PASSPHRASE),
        lambda slot: slots.open_with_passphrase(slot, Secret(b"Correct horse")),
    )
    yield (
        slots.with_key_file(slot_of(SlotKind.KEY_FILE), MASTERS, paper),
        lambda slot: slots.open_with_key_file(slot, paper),
        lambda slot: slots.open_with_key_file(slot, Secret(b"q" * 32)),
    )
    yield (
        slots.with_recovery(slot_of(SlotKind.RECOVERY), MASTERS, recovery.public_half(paper)),
        lambda slot: slots.open_with_recovery(slot, paper),
        lambda slot: slots.open_with_recovery(slot, Secret(b"q" * 32)),
    )


@pytest.mark.parametrize("number", range(3))
def test_a_slot_opens_for_its_key_alone_and_where_it_belongs(number):
    slot, open_, open_wrongly = list(sealed_slots())[number]
    found = slots.decode(slots.encode(slot), "slot")
    assert open_(found) == list(MASTERS)
    assert open_wrongly(found) is None
    for change in (
        {"repository": bytes(16)}, {"keys": bytes(16)}, {"label": "other"}, {"created": "x"},
        {"sealed": found.sealed[:-1] + bytes([found.sealed[-1] ^ 1])}, {"sealed": b""},
        {"kind": next(kind for kind in SlotKind if kind is not found.kind)},
    ):  # fmt: skip
        assert open_(msgspec.structs.replace(found, **change)) is None, change


@pytest.mark.parametrize(
    "change",
    [
        {"iterations": 0}, {"iterations": 17}, {"iterations": 1.5}, {"iterations": True},
        {"lanes": 65}, {"memory_kib": 2 * 1024 * 1024 + 1}, {"memory_kib": 7}, {"salt": "00"},
        {"salt": None}, {"lanes": "4"},
    ],
)  # fmt: skip
def test_a_passphrase_never_costs_more_than_is_bearable(change):
    slot = next(sealed_slots())[0]
    value = json.loads(slots.encode(slot).split(b"\n")[0])
    value["argon2id"] |= change
    with pytest.raises(slots.CorruptError):
        slots.decode(slots.sealed_json.dumps(value), "slot")


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"algorithm": "rot13"}], ids=["version", "algorithm"]
)
def test_a_slot_of_a_newer_program_is_said_to_be_one(change):
    slot = list(sealed_slots())[2][0]
    value = json.loads(slots.encode(slot).split(b"\n")[0]) | change
    with pytest.raises(slots.NewerVersionError):
        slots.decode(slots.sealed_json.dumps(value), "slot")


@given(st.dictionaries(st.text(max_size=12), st.none() | st.integers() | st.text(max_size=4)))
def test_whatever_a_slot_says_is_a_slot_or_corrupt(value):
    base = json.loads(slots.encode(next(sealed_slots())[0]).split(b"\n")[0])
    with suppress(slots.CorruptError):
        slots.decode(slots.sealed_json.dumps({**base, **value}), "slot")


@given(st.binary(min_size=32, max_size=32), st.integers(0, 55), st.sampled_from("A7Q2"))
def test_a_written_secret_comes_back_and_a_slip_is_noticed(data, place, letter):
    kind = written_secret.RECOVERY
    text = written_secret.write(kind, Secret(data))
    untidy = text.partition(":")[2].lower().replace("-", " ") + "\n"
    assert written_secret.read(kind, text) == written_secret.read(kind, untidy) == Secret(data)
    letters = text.replace("-", "")
    at = len(kind.replace("-", "")) + 1 + place
    slip = letters[:at] + letter + letters[at + 1 :]
    if slip != letters:
        with pytest.raises(ConfigError):
            written_secret.read(kind, slip.partition(":")[2])
    with pytest.raises(ConfigError):
        written_secret.read(written_secret.KEY_FILE, text)


def test_the_two_halves_of_the_keys_follow_from_the_first_master_alone():
    one, two = keys(), keys(generations=2)
    assert one.id == two.id
    assert one.ids == two.ids
    assert one.newest.files != two.newest.files
    assert two.generations[0].files == one.newest.files
    derived = [one.ids, one.description, one.newest.files, one.newest.checks, two.newest.files]
    assert len({secret.reveal() for secret in derived}) == len(derived)
    assert keys(can_read=False).newest.wrapping is None


def everything_secret():
    """What holds a secret, of each kind."""
    yield MASTERS[0]
    yield keys()
    yield keys().newest
    yield KeyedSealing(keys())
    yield from (slot for slot, _, _ in sealed_slots())


def forms_of(secret):
    """What a secret looks like when it is shown."""
    value = secret.reveal()
    words = [repr(value)[2:-1], value.hex(), str(list(value))[1:-1]]
    words += [written_secret.encode(kind, secret) for kind in ("x", written_secret.KEY_FILE)]
    return [word.casefold() for word in words]


def fail(value):
    """Name a value in an error, in every way."""
    padded = f"{value:>5}" if isinstance(value, Secret) else ""
    raise ConfigError(f"{value} {value!r} {padded}")


@pytest.mark.parametrize("number", range(7))
def test_no_way_of_showing_a_value_shows_a_secret(number):
    value = list(everything_secret())[number]
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    logger = logging.getLogger("shown")
    logger.propagate = False
    logger.addHandler(handler)
    logger.warning("%s %r", value, value)
    with pytest.raises(ConfigError) as raised:
        fail(value)
    error = raised.value
    shown.write(str(error) + repr(error) + "".join(traceback.format_exception(error)))
    captured = traceback.TracebackException.from_exception(error, capture_locals=True)
    shown.write("".join(captured.format()))
    logger.removeHandler(handler)
    with suppress(TypeError):
        shown.write(str(msgspec.json.encode(value)))
    with suppress(TypeError):
        shown.write(str(pickle.dumps(value)))
    with suppress(TypeError):
        shown.write(repr(copy.deepcopy(value)))
    text = shown.getvalue().casefold()
    assert text
    for secret in (*MASTERS, PASSPHRASE, keys().ids, keys().description, keys().newest.files):
        for form in forms_of(secret):
            assert form not in text


def test_keys_and_secrets_are_not_copied_into_files():
    for value in (MASTERS[0], Keys(MASTERS)):
        with pytest.raises(TypeError):
            pickle.dumps(value)
        with pytest.raises(TypeError):
            msgspec.json.encode(value)
