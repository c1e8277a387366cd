"""keys/file_format.py and names.py: a file opens whole, under its own name, in its repository."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.known_keys import REPOSITORY_ID, keys, other_keys
from virtbackup_async.errors import CorruptError, NewerVersionError, StorageError
from virtbackup_async.model import names as names_of_program
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.keys import file_format as wire
from virtbackup_async.repository.keys.file_format import (
    HEAD_BYTES,
    SEALED_SEGMENT_BYTES,
    SEGMENT_BYTES,
    Identity,
)
from virtbackup_async.repository.keys.names import MAX_STEP_BYTES, NameSeal

UUID = "0b1c2d3e-4f50-4617-8829-3a4b5c6d7e8f"
ELSEWHERE = StorageLocation("test", "one")
NAME = Identity(REPOSITORY_ID, "web/a.map")
LENGTHS = [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES]


def data_of(length):
    return random.Random(length).randbytes(length)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_file_comes_back_and_its_length_is_known(length):
    sealed = wire.seal_file(keys(), NAME, data_of(length))
    assert wire.open_file(keys(), NAME, sealed) == data_of(length)
    assert wire.sealed_bytes(length) == len(sealed)
    assert wire.content_bytes(len(sealed)) == length
    assert data_of(length)[:40] not in sealed or length < 8


@given(st.integers(0, 10 * SEALED_SEGMENT_BYTES))
def test_a_length_is_that_of_a_sealed_file_or_of_none(length):
    try:
        content = wire.content_bytes(length)
    except CorruptError:
        assert all(
            wire.sealed_bytes(near) != length for near in range(max(0, length - 400), length)
        )
    else:
        assert wire.sealed_bytes(content) == length


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(LENGTHS), st.data())
def test_a_changed_or_cut_file_never_opens(length, data):
    sealed = wire.seal_file(keys(), NAME, data_of(length))
    at, change = data.draw(st.integers(0, len(sealed) - 1)), data.draw(st.integers(1, 255))
    changed = sealed[:at] + bytes([sealed[at] ^ change]) + sealed[at + 1 :]
    with pytest.raises(CorruptError):
        wire.open_file(keys(), NAME, changed)
    with pytest.raises(CorruptError):
        wire.open_file(keys(), NAME, sealed[:at])
    with pytest.raises(CorruptError):
        wire.open_file(keys(), NAME, sealed + bytes(data.draw(st.integers(1, 100))))


def test_segments_are_neither_moved_nor_left_out():
    sealed = wire.seal_file(keys(), NAME, data_of(3 * SEGMENT_BYTES))
    head = sealed[:HEAD_BYTES]
    one, two, three = (
        sealed[HEAD_BYTES + n * SEALED_SEGMENT_BYTES :][:SEALED_SEGMENT_BYTES] for n in range(3)
    )
    for parts in (
        (two, one, three), (one, two), (one, three), (one, two, two), (one, two, three, three),
        (three,), (one,),
    ):  # fmt: skip
        with pytest.raises(CorruptError):
            wire.open_file(keys(), NAME, b"".join((head, *parts)))


@pytest.mark.parametrize(
    "identity",
    [Identity(REPOSITORY_ID, "web/b.map"), Identity(REPOSITORY_ID, "db/a.map"),
     Identity(bytes(16), "web/a.map")],
)  # fmt: skip
def test_a_file_opens_under_no_other_name_and_in_no_other_repository(identity):
    sealed = wire.seal_file(keys(), NAME, b"content")
    with pytest.raises(CorruptError):
        wire.open_file(keys(), identity, sealed)


def test_a_file_opens_with_no_other_keys():
    sealed = wire.seal_file(keys(), NAME, b"content")
    with pytest.raises(CorruptError):
        wire.open_file(other_keys(), NAME, sealed)
    assert wire.open_file(keys(generations=2), NAME, sealed) == b"content"
    newer = wire.seal_file(keys(generations=2), NAME, b"content")
    with pytest.raises(NewerVersionError):
        wire.open_file(keys(), NAME, newer)


def test_one_content_is_never_sealed_alike():
    assert len({wire.seal_file(keys(), NAME, b"x")[HEAD_BYTES:] for _ in range(20)}) == 20


STEPS = st.text(
    st.characters(exclude_characters="\0\1\2/", exclude_categories=["Cs"]), min_size=1, max_size=30
)


@given(STEPS, STEPS)
def test_a_name_comes_back_where_it_was_sealed(directory, step):
    names = NameSeal(keys(), REPOSITORY_ID)
    sealed = names.seal(directory, step)
    assert names.open(directory, sealed) == step
    assert names.seal(directory, step) == sealed
    assert NameSeal(keys(generations=2), REPOSITORY_ID).seal(directory, step) == sealed
    assert sealed == sealed.lower()
    assert sealed.isalnum()
    assert len(sealed) <= 255
    assert names.open(directory + "x", sealed) is None
    assert NameSeal(other_keys(), REPOSITORY_ID).open(directory, sealed) is None
    assert NameSeal(keys(), bytes(16)).open(directory, sealed) is None


@given(STEPS)
def test_a_name_of_somebody_else_is_none(step):
    assert NameSeal(keys(), REPOSITORY_ID).open("web", step) is None


def test_the_longest_names_that_the_program_makes_fit():
    names = NameSeal(keys(), REPOSITORY_ID)
    domain = "d" * 79
    longest = f"20260301-021500_2147483647_{domain}_{'v' * 20}.{'f' * 14}.map"
    assert len(longest) == 146
    for directory in (domain, f"{domain}.{UUID}"):
        assert names.open(directory, names.seal(directory, longest)) == longest
    of_domain = names_of_program.guest_directories(ELSEWHERE, Guest("d" * 300, UUID))[-1]
    assert names.seal("", of_domain.name)
    assert len(names.seal("", "x" * MAX_STEP_BYTES)) <= 255


@pytest.mark.parametrize("file", ["1_web_vda.map", "1_vda.map", "_web", "web", f"1_web.{UUID}.map"])
def test_a_name_in_a_directory_with_a_uuid_comes_back(file):
    names = NameSeal(keys(), REPOSITORY_ID)
    directory = f"web.{UUID}"
    assert names.open(directory, names.seal(directory, file)) == file


@pytest.mark.parametrize("step", ["x" * (MAX_STEP_BYTES + 1), "a\0", "a\x01b", "a\x02b"])
def test_a_name_that_cannot_be_sealed_is_refused(step):
    with pytest.raises(StorageError):
        NameSeal(keys(), REPOSITORY_ID).seal("web", step)
