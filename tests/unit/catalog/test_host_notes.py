"""catalog/host_notes.py: what this host noted is found again, and nothing else is believed."""

import json
import os
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from virtbackup_async.catalog.host_notes import HostNotes
from virtbackup_async.errors import StorageError
from virtbackup_async.model.backup import Packager, Pending, PendingDisk
from virtbackup_async.model.target_file import TargetFile

DISK = PendingDisk("/i/web.raw", "raw", "/i/web.raw.vbk-0a0b0c0d", "20260301-021500_3_web_vda.raw")
PENDING = Pending(
    "20260301-021500_3_web", 3, "web", "<domain>much</domain>", {"vda": DISK}, "1.1.0", 1772331300,
    Packager("directory"), "00000000-0000-4000-8000-000000000000", quiesce=True,
)  # fmt: skip


@pytest.fixture
def notes(tmp_path):
    return HostNotes(tmp_path / "state")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "target" / "web" / f"{PENDING.name}.json.pending"


def located(path):
    """A pending file and the target that it is in."""
    file = TargetFile.of(path)
    return file, file.target


async def test_a_note_is_what_was_to_be_done(notes, path):
    note = await notes.create(PENDING, *located(path))
    (found,) = (await notes.scan()).notes
    assert found == note
    assert (found.pending, found.pending_path) == (replace(PENDING, domain_xml=""), path)
    assert stat.S_IMODE(note.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(notes.state_directory.stat().st_mode) == 0o700
    await notes.remove(note.path)
    await notes.remove(note.path)
    assert (await notes.scan()).notes == ()
    assert await notes.read(note.path) is None


async def test_a_host_without_notes_has_none_and_makes_nothing(notes):
    assert (await notes.scan()).notes == ()
    assert not notes.state_directory.exists()


async def test_what_was_committed_is_noted_of_its_disk(notes, path):
    both = replace(PENDING, disks={"vda": DISK, "vdb": DISK})
    note = await notes.create(both, *located(path))
    await notes.note_committed(note.path, "vdb")
    (found,) = (await notes.scan()).notes
    assert [disk.committed for disk in found.pending.disks.values()] == [False, True]
    await notes.remove(note.path)
    await notes.note_committed(note.path, "vda")
    assert not note.path.exists()


async def test_a_pending_file_has_the_note_that_was_made_of_it(notes, path):
    note = await notes.create(PENDING, *located(path))
    path.parent.mkdir(parents=True)
    path.touch()
    known = await notes.scan()
    # Whatever is in it now.
    assert known.of(replace(PENDING, disks={}), TargetFile.of(path)) == note
    assert known.of(PENDING, TargetFile.of(path.with_name("other.json.pending"))) is None


async def test_nor_does_a_target_mounted_elsewhere_lose_it(notes, path, tmp_path):
    note = await notes.create(PENDING, *located(path))
    known, moved = await notes.scan(), TargetFile.of(tmp_path / "elsewhere" / path.name)
    assert known.of(PENDING, moved) == note
    assert known.of(replace(PENDING, domain_xml="another"), moved) == note
    changed = replace(DISK, src="/i/other.raw")
    assert known.of(replace(PENDING, disks={"vda": changed}), moved) is None


async def test_links_in_the_path_of_a_target_do_not_matter(notes, path, tmp_path):
    path.parent.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    note = await notes.create(PENDING, *located(tmp_path / "link" / "web" / path.name))
    assert note.pending_path == path
    assert (await notes.scan()).of(PENDING, TargetFile.of(path)) == note


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"{}", b'{"pending_path": "/t/x", "pending": []}',
        b'{"pending_path": "relative", "pending": {}}', b'{"pending": {"version": "9.0.0"}}',
    ],
)  # fmt: skip
async def test_a_damaged_note_is_told_and_hides_no_other(notes, path, content):
    note = await notes.create(PENDING, *located(path))
    damaged = note.path.with_name("a.00000000.note")
    damaged.write_bytes(content)
    known = await notes.scan()
    assert known.notes == (note,)
    (problem,) = known.problems
    assert str(damaged) in problem


@pytest.mark.parametrize("key", ["pending_path", "name"])
async def test_a_note_names_its_own_pending_file(notes, path, key):
    note = await notes.create(PENDING, *located(path))
    raw = json.loads(note.path.read_bytes())
    if key == "name":
        raw["pending"]["name"] = "20260301-021500_3_other"
    else:
        raw["pending_path"] = "/t/web/other.json.pending"
    note.path.write_text(json.dumps(raw))
    assert (await notes.scan()).notes == ()


async def test_a_link_is_no_note(notes, path, tmp_path):
    note = await notes.create(PENDING, *located(path))
    note.path.rename(tmp_path / "planted")
    note.path.symlink_to(tmp_path / "planted")
    known = await notes.scan()
    assert known.notes == ()
    assert len(known.problems) == 1


@pytest.mark.parametrize("which", ["state", "state/undo"])
async def test_a_directory_that_others_may_write_to_is_not_believed(notes, path, tmp_path, which):
    await notes.create(PENDING, *located(path))
    (tmp_path / which).chmod(0o777)
    with pytest.raises(StorageError, match="written to by others"):
        await notes.scan()
    with pytest.raises(StorageError):
        await notes.create(PENDING, *located(path))


async def test_the_longest_name_fits(notes):
    name = PENDING.name.ljust(106, "w")
    path = Path("/t") / ("w" * 255) / f"{name}.json.pending"
    disk = replace(DISK, target=f"{name}_vda.raw")
    note = await notes.create(replace(PENDING, name=name, disks={"vda": disk}), *located(path))
    assert (await notes.scan()).notes == (note,)
    assert len(os.fsencode(note.path.name)) < 255


async def test_what_a_death_left_of_a_note_goes_when_it_is_old(notes, path):
    note = await notes.create(PENDING, *located(path))
    old, young = (note.path.with_name(f".virtbackup-{digits}.tmp") for digits in ("aa", "bb"))
    for debris, date in ((old, 1000), (young, 2000), (note.path, 1000)):
        debris.touch()
        os.utime(debris, (date, date))
    await notes.remove_stray_files(1500)
    assert sorted(note.path.parent.iterdir()) == sorted([young, note.path])


async def test_where_there_are_no_notes_there_is_no_debris(notes):
    await notes.remove_stray_files(1500)
    assert not notes.state_directory.exists()
