"""engine/clean/jumps.py: what of a guest's history is a jump, and what is a usual night."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.engine.clean.jumps import before_jump, find_jump
from virtbackup_async.model.backup import Definition, DiskRecord, ImageRecord, Packager
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.model.tracking import Reading

DAY_S = 86400
HOUR_S = 3600
MIB = 1 << 20
GIB = 1 << 30
DATE = 1772331300
REPOSITORY = Packager("repository")
ZSTD = Packager("zstd", {"compression_lvl": 3})


def backup(day, new=None, ratio=0.4, data=20 * GIB, packager=REPOSITORY, changed=None, **fields):
    """A backup of a guest: its new data, and how well that could be compressed."""
    stored = int((data if new is None else new) * ratio)
    image = ImageRecord(
        "f", "/i", "raw", 40 * GIB, data, stored, "",
        new_bytes=None if new is None else int(new),
        compressed_bytes=None if new is None else stored,
    )  # fmt: skip
    reading = None
    if changed is not None:
        reading = Reading(None, "base", None, DATE, int(changed) + GIB, audited_bytes=GIB)
    date = int(DATE + day * DAY_S)
    definition = Definition(
        name=f"{date}", domain_id=1, domain_name="web", domain_xml="", disks={"vda": "f"},
        version="1.1.0", date=date, packager=packager, domain_uuid=fields.pop("uuid", "u"),
        records={"vda": DiskRecord(image, reading=reading)}, **fields,
    )  # fmt: skip
    return FoundBackup(definition, TargetFile.of(Path(f"/t/web/{date}.json")))


def nights(count=40, seed=7, usual=0.02):
    """A first backup, and nights that add a few percent, more or less well compressed."""
    random = Random(seed)
    return [
        backup(0, 20 * GIB),
        *(
            backup(day, 20 * GIB * usual * random.uniform(0.3, 2), random.uniform(0.3, 0.6))
            for day in range(1, count)
        ),
    ]


def jump_day(backups):
    jump = find_jump(backups)
    return None if jump is None else round((jump.found.definition.date - DATE) / DAY_S)


def test_usual_nights_are_no_jump():
    for seed in range(20):
        assert find_jump(nights(seed=seed)) is None


def test_an_encrypted_guest_is_one():
    jump = find_jump([*nights(), backup(40, 16 * GIB, 1.0)])
    assert jump is not None
    assert jump.found.definition.date == DATE + 40 * DAY_S
    assert "of 20.0 GiB of its data can no longer be compressed" in jump.reason


def test_so_is_one_that_is_rewritten_though_it_can_be_compressed():
    jump = find_jump([*nights(), backup(40, 16 * GIB, 0.4)])
    assert jump is not None
    assert jump.reason.endswith("of 20.0 GiB of its data changed, more than usual")


@pytest.mark.parametrize(
    ("what", "day"),
    [
        ("a monthly upgrade of the system", backup(40, 4 * GIB, 0.45)),
        ("an upgrade whose packages stay in the cache", backup(40, 4 * GIB, 0.7)),
        ("a new film", backup(40, 4 * GIB, 0.99, data=24 * GIB)),
        ("a trim", backup(40, 0.1 * GIB, 0.4, data=5 * GIB)),
        ("a night after a trim", backup(40, 0.4 * GIB, 0.4, data=5 * GIB)),
        ("nothing at all", backup(40, 0)),
    ],
)
def test_normal_changes_are_none(what, day):
    assert find_jump([*nights(), day]) is None, what


def test_a_guest_that_could_never_be_compressed_may_change_a_quarter():
    """Its disks are encrypted on purpose: only a change of half of it is a jump."""
    luks = [backup(day, 20 * GIB if day == 0 else 0.2 * GIB, 1.0) for day in range(40)]
    assert find_jump([*luks, backup(40, 6 * GIB, 1.0)]) is None
    assert jump_day([*luks, backup(40, 16 * GIB, 1.0)]) == 40


def test_an_attack_that_takes_days_adds_up():
    slow = [*nights(), *(backup(40 + day, 2.5 * GIB, 1.0) for day in range(7))]
    assert jump_day(slow) in range(41, 47)


def test_so_does_one_in_hourly_backups():
    hourly = [backup(hour / 24, 0.05 * GIB, 0.4) for hour in range(24 * 14)]
    attack = [backup(14 + hour / 24, 2 * GIB, 0.98) for hour in range(6)]
    assert find_jump(hourly) is None
    assert find_jump([*hourly, *attack]) is not None


def test_what_a_failed_backup_stored_before_counts_by_the_dirty_bitmap():
    assert find_jump([*nights(), backup(40, 0.1 * GIB, 1.0, changed=15 * GIB)]) is not None
    assert find_jump([*nights(), backup(40, 0.1 * GIB, 1.0, changed=1 * GIB)]) is None


@pytest.mark.parametrize("count", [0, 1, 2])
def test_first_backups_are_none(count):
    begun = [backup(day, 20 * GIB if day == 0 else GIB) for day in range(count)]
    assert find_jump(begun) is None
    assert find_jump([*begun, backup(count, 18 * GIB, 1.0)]) is None


def test_the_first_week_of_a_guest_has_a_history_after_three_backups():
    assert jump_day([*nights(4), backup(4, 18 * GIB, 1.0)]) == 4


def test_small_guests_are_none():
    small = [backup(day, 40 * MIB if day == 0 else MIB, data=40 * MIB) for day in range(40)]
    assert find_jump([*small, backup(40, 40 * MIB, 1.0, data=40 * MIB)]) is None


def test_another_guest_of_the_name_and_another_form_begin_anew():
    assert find_jump([*nights(), backup(40, 20 * GIB, 1.0, uuid="other")]) is None
    packed = [backup(day, ratio=0.4, packager=ZSTD) for day in range(40)]
    assert find_jump([*packed, backup(40, 20 * GIB, 0.9)]) is None
    assert find_jump([*packed, backup(40, ratio=1.0, packager=Packager("directory"))]) is None


def test_a_package_that_holds_everything_shows_how_well_it_compresses():
    packed = [backup(day, ratio=0.4 + day % 3 / 100, packager=ZSTD) for day in range(40)]
    assert find_jump(packed) is None
    assert find_jump([*packed, backup(40, ratio=0.5, packager=ZSTD)]) is None
    jump = find_jump([*packed, backup(40, ratio=0.8, packager=ZSTD)])
    assert jump is not None
    assert jump.reason.startswith("13.")
    plain = [backup(day, ratio=1.0, packager=Packager("directory")) for day in range(41)]
    assert find_jump(plain) is None


def test_backups_of_virt_backup_and_of_earlier_versions_record_nothing():
    old = backup(40, packager=REPOSITORY)
    assert find_jump([*nights(), old, backup(41, 0.1 * GIB)]) is None


def test_an_accepted_jump_is_none_and_what_it_brought_is_usual():
    attacked = [*nights(), backup(40, 16 * GIB, 1.0)]
    accepted = [*nights(), backup(40, 16 * GIB, 1.0, accepted=DATE)]
    after = [*accepted, backup(41, 0.3 * GIB), backup(42, 15 * GIB, 1.0)]
    assert find_jump(attacked) is not None
    assert find_jump(accepted) is None
    assert find_jump(after) is None
    assert jump_day([*after, backup(43, 15 * GIB, 1.0), backup(44, 18 * GIB, 1.0)]) is None
    assert jump_day([*after[:-1], backup(42, 30 * GIB, 1.0, data=40 * GIB)]) == 42


def test_the_first_jump_is_found_and_everything_before_it_stays():
    backups = [*nights(), backup(40, 16 * GIB, 1.0), backup(41, GIB), backup(42, 16 * GIB, 1.0)]
    jump = find_jump(reversed(backups))
    assert jump is not None
    assert [*before_jump(jump, backups)] == backups[:41]
    assert [*before_jump(None, backups)] == []


amounts = st.integers(0, 1 << 50)


@given(
    st.lists(st.tuples(amounts, amounts, amounts, st.integers(0, 60), st.booleans()), max_size=60)
)
def test_no_numbers_make_it_fail(numbers):
    """A definition may say anything."""
    backups = []
    for data, new, stored, day, has_new in numbers:
        found = backup(day, new if has_new else None, data=data, changed=stored)
        backups.append(found)
    jump = find_jump(backups)
    assert jump is None or jump.found in backups
