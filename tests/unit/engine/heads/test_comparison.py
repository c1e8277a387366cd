"""What legitimate work explains, and what it does not."""

import pytest
from msgspec.structs import replace

from virtbackup_async.catalog.scanning import FoundBackup, Problem, Scan
from virtbackup_async.engine.heads.comparison import (
    accepted,
    contradictions,
    guests_in,
    listed_domain,
    newest_head,
    updated,
    without,
)
from virtbackup_async.model.backup import Definition, Packager
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.heads import RememberedDomain, SeenDefinition
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile

TARGET = StorageLocation.of("/backup")
WEB = TargetFile(TARGET, "web")
UUID = "b9ef5a09-6e0f-4a44-9e2b-5e5f7a1d2c3b"
KEY = Guest("web", UUID)
OLDER, EXCHANGED, FORKED = "target_rolled_back", "definition_exchanged", "definitions_forked"


def hash_of(number, other=""):
    return f"blake3:{number:016d}{other:0>48}"


def name_of(number, other=""):
    return f"202603{number:02d}-021500_3_web{other}"


def backup(number, other="", previous=None, uuid=UUID):
    before = previous if previous is not None else hash_of(number - 1) if number > 1 else None
    return Definition(
        name_of(number, other), 3, "web", "<domain/>", {}, "1.1.0", 1772331300 + number,
        Packager("tar"), domain_uuid=uuid, sequence=number, previous=before,
        hash=hash_of(number, other),
    )  # fmt: skip


def scan(*definitions, removed=(), problems=()):
    found = [
        [FoundBackup(one, WEB / f"{one.name}.json") for one in of] for of in (definitions, removed)
    ]
    broken = [Problem(path, str(path), Guest("web"), "damaged") for path in problems]
    return Scan(tuple(found[0]), (), tuple(broken), tuple(found[1]))


def listed(*definitions, **more):
    return listed_domain(scan(*definitions, **more), [WEB], KEY)


def seen(number, other=""):
    return SeenDefinition(name_of(number, other), number, hash_of(number, other))


def memory(*numbers, **more):
    highest = more.pop("sequence", max(numbers))
    return RememberedDomain("web", UUID, highest, tuple(map(seen, numbers)), **more)


ONE_TO_FIVE = [backup(number) for number in range(1, 6)]


def codes(*definitions, remembers=None, **more):
    return [one.code for one in contradictions(listed(*definitions, **more), remembers)]


@pytest.mark.parametrize(
    ("there", "remembers"),
    [
        (ONE_TO_FIVE, memory(1, 2, 3, 4, 5)),
        (ONE_TO_FIVE, memory(1, 2, 3)),
        (ONE_TO_FIVE, None),
        ([backup(1), backup(4), backup(5)], memory(1, 2, 3, 4, 5)),
        ([backup(8), backup(9)], memory(1, 2, 3, 4, 5)),
        ([backup(6)], memory(4, 5)),
        ([backup(1), backup(3)], memory(1, 3, sequence=7)),
        ([], None),
    ],
    ids=[
        "nothing happened", "the memory is older: a crash, or a restored disk of the host",
        "nothing is remembered", "older ones were cleaned",
        "another host goes on, and cleaned all that this one knew",
        "another host goes on where this one ended", "this host removed the newest", "nothing",
    ],
)  # fmt: skip
def test_what_legitimate_work_does_is_no_contradiction(there, remembers):
    assert codes(*there, remembers=remembers) == []


@pytest.mark.parametrize(
    ("there", "remembers", "found"),
    [
        (ONE_TO_FIVE[:3], memory(1, 2, 3, 4, 5), [OLDER]),
        ([], memory(1, 2), [OLDER]),
        ([backup(1), backup(8, previous=hash_of(7))], memory(1, missing=seen(7)), [OLDER]),
        ([*ONE_TO_FIVE[:4], backup(5, "x")], memory(4, 5), [OLDER, FORKED]),
        ([*ONE_TO_FIVE[:4], replace(backup(5), hash=hash_of(5, "x"))], memory(4, 5), [EXCHANGED]),
        ([replace(backup(5), sequence=None, hash=None)], memory(5), [EXCHANGED]),
        ([backup(3), backup(6, previous=hash_of(5, "x"))], memory(4, 5), [FORKED]),
        ([backup(2), backup(3, previous=hash_of(2, "x"))], None, [FORKED]),
        ([backup(2), backup(2, "x", hash_of(1))], None, [FORKED, FORKED]),
    ],
    ids=[
        "an older state", "all is gone", "the newest was missing when the last one was made",
        "the newest is another one", "the newest has other content", "it lost its number",
        "another host went on from an older state",
        "one of two neighbours was exchanged", "two have one number",
    ],
)  # fmt: skip
def test_what_legitimate_work_does_not_do_is_one(there, remembers, found):
    assert codes(*there, remembers=remembers) == found


def test_a_removal_that_was_begun_and_what_cannot_be_read_are_there():
    assert codes(removed=[backup(5)], remembers=memory(5)) == []
    broken = [WEB / f"{name_of(5)}.json"]
    assert codes(*ONE_TO_FIVE[:4], problems=broken, remembers=memory(4, 5)) == []
    assert codes(problems=[WEB], remembers=memory(4, 5)) == []


def test_another_domain_of_the_name_has_numbers_of_its_own():
    other = "11111111-6e0f-4a44-9e2b-5e5f7a1d2c3b"
    found = scan(backup(5), backup(1, "x", uuid=other))
    assert guests_in(found) == {KEY, Guest("web", other)}
    for key in guests_in(found):
        assert not contradictions(listed_domain(found, [WEB], key), None)


def test_many_of_one_kind_are_counted():
    changed = [replace(one, hash=hash_of(90 + one.sequence)) for one in ONE_TO_FIVE]
    found = contradictions(listed(*changed), memory(1, 2, 3, 4, 5))
    exchanged = [one.message for one in found if one.code == EXCHANGED]
    assert len(exchanged) == 3
    assert exchanged[-1].endswith("; and so 2 more")


def test_one_line_says_what_is_missing_what_is_there_and_what_to_do():
    (found,) = contradictions(listed(*ONE_TO_FIVE[:3]), memory(4, 5))
    assert found.line == (
        f"/backup IS OLDER THAN IT WAS: this host has seen backup {name_of(5)} "
        f"(5:{5:016d}) there, which is missing; the newest is {name_of(3)} (3:{3:016d}). "
        "Find out who changed the target, and compare with older notifications; if you know why, "
        "run `virtbackup accept -- web`."
    )


def test_a_memory_follows_what_is_there_and_what_is_added():
    new = updated(listed(*ONE_TO_FIVE[3:]), memory(1, 2, 3, 4, 5), backup(6))
    assert [one.sequence for one in new.seen] == [4, 5, 6]
    assert (new.sequence, new.missing) == (6, None)
    assert updated(listed(*ONE_TO_FIVE), None) == memory(1, 2, 3, 4, 5)
    assert updated(listed(), None) is None


def test_a_backup_after_a_rollback_does_not_hide_it():
    before = memory(1, 2, 3, 4, 5)
    new = updated(listed(*ONE_TO_FIVE[:3]), before, backup(6))
    assert new.missing == seen(5)
    there = [*ONE_TO_FIVE[:3], backup(6)]
    assert codes(*there, remembers=new) == [OLDER]
    again = updated(listed(*there), new, backup(7))
    assert codes(*there, backup(7), remembers=again) == [OLDER]
    # The newest is back: the target was only away, or on another disk.
    assert codes(*ONE_TO_FIVE, backup(6), backup(7), remembers=again) == []
    assert updated(listed(*ONE_TO_FIVE, backup(6), backup(7)), again).missing is None


def test_an_exchanged_definition_does_not_become_the_one_that_was_seen():
    changed = replace(backup(5), hash=hash_of(5, "x"))
    new = updated(listed(*ONE_TO_FIVE[:4], changed), memory(4, 5), backup(6))
    assert codes(*ONE_TO_FIVE[:4], changed, backup(6), remembers=new) == [EXCHANGED, FORKED]


def test_what_cannot_be_read_is_not_forgotten():
    before = memory(4, 5)
    assert updated(listed(problems=[WEB]), before) == before


def test_what_this_host_removes_is_forgotten_but_its_number_is_not_used_again():
    left = without(memory(4, 5), name_of(5))
    assert left == memory(4, sequence=5)
    assert without(left, name_of(4)) is None
    assert without(memory(4, missing=seen(5)), name_of(5)) == memory(4)


def test_what_an_admin_accepts_is_what_was_seen():
    before = memory(1, 2, 3, 4, 5, missing=seen(5))
    forked = [backup(2), backup(3, previous=hash_of(2, "x"))]
    new = accepted(listed(*forked), before)
    assert [one.sequence for one in new.seen] == [2, 3]
    assert (new.sequence, new.missing, new.accepted) == (5, None, 3)
    assert codes(*forked, remembers=new) == []
    assert codes(*forked, backup(4, previous=hash_of(3, "x")), remembers=new) == [FORKED]
    assert accepted(listed(), before) is None


def test_a_head_is_the_highest_number_whatever_its_date():
    assert newest_head([backup(5), backup(3)]) == f"5:{5:016d}"
    assert newest_head([replace(backup(5), sequence=None)]) is None
