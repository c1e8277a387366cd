"""Which backup is gone on from, whatever became of the image, the backups and their versions."""

import json
import re
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup.bases import Candidates, CheckpointedBackup, find_candidates
from virtbackup_async.model.backup import (
    Definition,
    DiskRecord,
    ImageRecord,
    Packager,
    Verification,
)
from virtbackup_async.model.domain import DomainInfo
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.tracking import Reading

EARLY = Path(__file__).parents[3] / "compat/data/reading-1"
UUID = "b9ef5a09-6e0f-4a44-9e2b-5e5f7a1d2c3b"
DAMAGED = Verification(0, ok=False, digests=True)


def former(name, date, *, checkpoint_of=None, checkpoint="C", verified=None, **reading):
    """A backup that names C; of a domain shut off where ``checkpoint_of`` is another one."""
    image = ImageRecord(f"{name}_vda.raw", "/i/a", "raw", 64, 0, 0, "")
    state = "running" if checkpoint_of == name else "shutoff"
    fields = {"base": "some", "reason": None, "full_date": 1, "read_bytes": 0, **reading}
    read = Reading(checkpoint, checkpoint_of=checkpoint_of, **fields)
    record = DiskRecord(image, reading=read)
    definition = Definition(
        name, 1, "web", "", {}, "1", date, Packager("repository"), state=state, verified=verified
    )
    return CheckpointedBackup(definition, record, read, checkpoint)


MAKER = former("maker", 1, checkpoint_of="maker", base=None)
LATER = former("later", 2, checkpoint_of="maker", base="maker", changed=((0, 8),))
LATEST = former("latest", 3, checkpoint_of="maker", base="maker", changed=((16, 8),))


def chosen(*formers):
    found = Candidates(formers, ()).choose()
    return found if isinstance(found, str) else found.definition.name


def test_the_maker_of_the_checkpoint_is_gone_on_from():
    assert chosen(MAKER, LATER, LATEST) == "maker"
    assert MAKER.base().changed == ()


def test_without_it_the_newest_that_tells_its_changes():
    assert chosen(LATER, LATEST) == "latest"
    base = LATEST.base()
    assert (base.backup, base.checkpoint_of) == ("latest", "maker")
    assert base.changed == (Extent(16, 8),)


def test_a_damaged_one_is_not():
    damaged = replace(MAKER, definition=replace(MAKER.definition, verified=DAMAGED))
    assert chosen(damaged, LATER) == "later"
    assert "damaged" in chosen(damaged)


def test_one_that_was_read_in_full_although_there_was_a_bitmap():
    anew = former("anew", 3, checkpoint_of="maker", base=None, changed=())
    assert chosen(MAKER, LATER, anew) == "anew"
    assert chosen(MAKER, anew, LATEST) == "maker"


def test_a_bitmap_that_an_audit_found_to_lie_is_never_trusted_again():
    audited = former("a", 4, checkpoint_of="maker", base=None, changed=(), audit_failed=True)
    assert "audit" in chosen(MAKER, audited)
    assert "audit" in chosen(MAKER, audited, LATEST)
    fresh = former("fresh", 5, checkpoint_of="fresh", base=None, audit_failed=True)
    assert chosen(fresh) == "fresh"


@pytest.mark.parametrize(
    ("base", "is_fit"),
    [(None, True), ("20260301-021500_3_web", True), ("20260301-021500_-1_web", False)],
)
def test_an_earlier_version_was_right_to_go_on_from_a_running_domain(base, is_fit):
    name = "20260302-021500_3_web"
    one = former(name, 2, base=base)
    running = replace(one, definition=replace(one.definition, state="running"))
    assert (chosen(running) == name) == is_fit


@pytest.fixture
def early(tmp_path):
    """Three backups of an earlier version: running, shut off, running."""
    directory = tmp_path / "web"
    directory.mkdir()
    for path in EARLY.iterdir():
        shutil.copy(path, directory)
        (directory / f"{path.stem}_vda.raw.map").touch()
    return tmp_path


async def candidates(target):
    info = DomainInfo("web", UUID, 1, True, True, "")
    return (await find_candidates(Catalog(StorageLocation.of(target)), info))["vda"]


async def test_earlier_versions_went_on_from_what_may_not_have_been_the_state_before(early):
    found = (await candidates(early)).choose()
    assert found == "earlier versions went on from a backup of the domain shut off"


async def test_what_was_made_since_is_gone_on_from(early):
    found = await candidates(early)
    since = former("since", 1 << 40, checkpoint_of="since", full_date=1772331300)
    assert Candidates((since,), (*found.others, *found.with_checkpoint)).choose() == since


async def test_what_they_made_before_is_gone_on_from(early):
    next((early / "web").glob("20260303*.json")).unlink()
    assert (await candidates(early)).choose().definition.name == "20260301-021500_3_web"


async def test_of_what_they_made_nobody_knows_the_changes(early):
    for name in ("20260303", "20260301"):
        next((early / "web").glob(f"{name}*.json")).unlink()
    assert "not there any more" in (await candidates(early)).choose()


@pytest.mark.parametrize("name", ["before-upgrade", "virtbackup-0a0b0c0d-x", ""])
async def test_a_checkpoint_that_is_not_ours_is_not_gone_on_from(early, name):
    """Whoever can write to the target could have libvirt describe an admin's own anew."""
    for path in (early / "web").glob("*.json"):
        text = re.sub(r'"virtbackup-0a0b0c0d-[^"]*"', f'"{name}"', path.read_text())
        path.write_text(text)
    info = DomainInfo("web", UUID, 1, True, True, "")
    assert await find_candidates(Catalog(StorageLocation.of(early)), info) == {}


async def test_backups_are_parted_by_the_newest_checkpoint(early):
    found = await candidates(early)
    assert [one.definition.name for one in found.with_checkpoint] == ["20260303-021500_4_web"]
    assert [one.definition.name for one in found.others] == [
        "20260301-021500_3_web",
        "20260302-021500_-1_web",
    ]


@pytest.mark.parametrize("lost", ["reading", "checkpoint"])
async def test_a_disk_that_was_not_tracked_is_passed_over(early, lost):
    """It was backed up by another method meanwhile; the bitmap of the night before goes on."""
    (path,) = (early / "web").glob("20260303*.json")
    raw = json.loads(path.read_text())
    vda = raw["images"]["vda"]
    if lost == "reading":
        del vda["reading"]
    else:
        vda["reading"]["checkpoint"] = None
    path.write_text(json.dumps(raw))
    found = await candidates(early)
    assert found.newest.definition.name == "20260302-021500_-1_web"
