"""Undo by this host's own notes: they hold where a target's files lie, are damaged or are gone."""

import errno
import json
import shutil
import stat

import pytest
import yaml
from msgspec.structs import replace

from fakes.hostile_target import DATE, NAME, UUID, HostileTarget, make_overlay
from fakes.hypervisor import DescribedDomain
from fakes.site import Site
from virtbackup_async.catalog.host_notes import HostNotes, Notes
from virtbackup_async.catalog.scanning import FoundPending
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.doctor.leftovers import check_notes
from virtbackup_async.engine.host_state import this_host
from virtbackup_async.engine.locks import hold_domain
from virtbackup_async.engine.undo.evidence import dead_backup
from virtbackup_async.events import BackupDone, BackupFailed, Level, PendingFound, Warned
from virtbackup_async.host.local import LocalHost
from virtbackup_async.model.backup import Packager, Pending, PendingDisk
from virtbackup_async.model.target_file import TargetFile


def located(path):
    """A pending file and the target that it is in."""
    file = TargetFile.of(path)
    return file, file.target


class Killed(HostileTarget):
    """A target with what a killed backup of ``evil`` left; the host has its note of it."""

    def __init__(self, root, state):
        super().__init__(root)
        self.notes = HostNotes(state)
        self.overlay = make_overlay(self.images / "evil.raw.vbk-0a0b0c0d", self.image)
        self.domain.persistent = {"vda": self.overlay}
        self.disk = {"src": str(self.image), "snapshot": str(self.overlay)}
        self.path = self.plant({"vda": self.disk})

    async def note(self, *, quiesce=False, **changed):
        disk = PendingDisk(str(self.image), "raw", str(self.overlay), f"{NAME}_vda.raw", **changed)
        packager = Packager("directory")
        self.noted = Pending(
            NAME, 3, "evil", "<domain/>", {"vda": disk}, "1.0.0", DATE, packager, UUID, quiesce
        )
        return await self.notes.create(self.noted, *located(self.path))

    async def assert_undone(self):
        await self.clean()
        assert self.undone, self.left
        assert self.domain.persistent == {"vda": self.image}
        assert not self.overlay.exists()
        assert not self.path.exists()
        assert (await self.notes.scan()).notes == ()


@pytest.fixture
def killed(tmp_path, state_directory):
    return Killed(tmp_path, state_directory)


async def test_note_and_pending_file_go_together(killed):
    await killed.note()
    await killed.assert_undone()
    assert killed.image.read_bytes()[:1] == b"\x02"


@pytest.mark.parametrize(("frozen", "said"), [(2, True), (0, False), (None, False)])
async def test_a_guest_that_was_still_frozen_is_told(killed, caplog, frozen, said):
    await killed.note(quiesce=True)
    killed.domain.thaws = frozen
    await killed.assert_undone()
    assert "thaw" in killed.domain.calls
    assert ("the guest was still frozen: thawed" in caplog.text) == said


@pytest.mark.parametrize("spoil", ["gone", "empty", "garbage", "lies", "no target", "link"])
async def test_the_note_holds_whatever_became_of_the_pending_file(killed, spoil):
    """Who removes the file must not keep the domain on its overlay."""
    await killed.note()
    match spoil:
        case "gone":
            killed.path.unlink()
        case "empty":
            killed.path.write_bytes(b"")
        case "garbage":
            killed.path.write_text('{"disks": {')
        case "lies":
            killed.plant({"vda": {"src": str(killed.etc / "x"), "snapshot": None}}, uuid=UUID)
        case "no target":
            shutil.rmtree(killed.directory)
        case "link":
            killed.path.unlink()
            killed.path.symlink_to(killed.etc / "x")
    await killed.assert_undone()
    assert killed.image.read_bytes()[:1] == b"\x02"


async def test_what_the_host_noted_as_committed_is_removed(killed):
    """The pivot was done: what the overlay holds is older than the image."""
    await killed.note(committed=True)
    killed.domain.persistent = {"vda": killed.image}
    await killed.assert_undone()
    assert killed.image.read_bytes()[:1] == b"\x01"


async def test_what_only_the_target_says_was_committed_is_not(killed):
    await killed.note()
    killed.domain.persistent = {"vda": killed.image}
    killed.plant({"vda": killed.disk | {"committed": True}})
    await killed.clean()
    assert "holds data" in killed.left[0].error
    assert killed.overlay.exists()


async def test_a_domain_that_is_gone_is_left_to_a_person_and_its_note_stays(killed):
    await killed.note()
    killed.hypervisor.domains.clear()
    await killed.clean()
    assert f"qemu-img commit -f qcow2 {killed.overlay}" in killed.left[0].error
    assert killed.path.exists()
    killed.overlay.unlink()
    await killed.clean()
    assert killed.undone
    assert not killed.path.exists()
    assert (await killed.notes.scan()).notes == ()


async def test_with_a_note_the_domain_is_found_by_its_overlay(killed):
    """It was defined anew, with another UUID."""
    await killed.note()
    killed.domain.uuid = UUID[:-1] + "9"
    await killed.assert_undone()


async def test_scratch_images_and_sockets_of_a_note_are_removed(killed):
    scratch = killed.images / "evil.raw.vbk-0a0b0c0d.scratch"
    socket = killed.etc / "vbk-0a0b0c0d.sock"
    killed.overlay.unlink()
    killed.domain.persistent = {"vda": killed.image}
    scratch.touch()
    socket.touch()
    disk = PendingDisk(str(killed.image), "raw", None, f"{NAME}_vda.raw", scratch=str(scratch))
    pending = Pending(
        NAME, 3, "evil", "<domain/>", {"vda": disk}, "1.0.0", DATE, Packager("directory"), UUID,
        socket=str(socket),
    )  # fmt: skip
    await killed.notes.create(pending, *located(killed.path))
    await killed.assert_undone()
    assert not scratch.exists()
    assert not socket.exists()


async def test_only_notes_of_the_groups_that_are_cleaned_are_undone(killed):
    await killed.note()
    killed.path.unlink()
    config = killed.root / "config.yml"
    raw = yaml.safe_load(config.read_text())
    raw["groups"]["other"] = raw["groups"]["all"] | {"hosts": ["web"]}
    config.write_text(yaml.safe_dump(raw))
    await killed.clean("other")
    assert not killed.undone
    assert killed.overlay.exists()
    await killed.clean("all")
    assert killed.undone


async def test_a_backup_that_runs_keeps_its_note(killed):
    await killed.note()
    killed.path.unlink()
    async with hold_domain(LocalHost(killed.root / "locks"), "evil", UUID, "backup"):
        await killed.clean()
    (left,) = killed.left
    assert left.in_use
    assert killed.overlay.exists()


async def test_notes_that_others_may_have_written_are_not_believed(killed, state_directory):
    await killed.note(committed=True)
    killed.domain.persistent = {"vda": killed.image}
    state_directory.chmod(0o777)
    await killed.clean()
    assert any("cannot be trusted" in event.message for event in killed.events_of(Warned))
    assert killed.left
    assert killed.overlay.exists()


async def test_nor_are_those_in_a_target(killed, monkeypatch):
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(killed.target / "state"))
    killed.notes = HostNotes(killed.target / "state")
    await killed.note(committed=True)
    killed.domain.persistent = {"vda": killed.image}
    await killed.clean()
    assert any("lies in the target" in event.message for event in killed.events_of(Warned))
    assert killed.overlay.exists()


async def test_doctor_tells_of_what_is_left(killed, state_directory):
    host = this_host(load_config(killed.root / "config.yml"))
    note = await killed.note()
    assert (await check_notes(host))[1] == []
    killed.path.unlink()
    ((finding,)) = (await check_notes(host))[1]
    assert (finding.level, finding.subject) == (Level.PROBLEM, "evil")
    assert "its pending file is gone" in finding.message
    async with hold_domain(host.images, "evil", UUID, "backup"):
        ((finding,)) = (await check_notes(host))[1]
        assert finding.level is Level.INFO
    note.path.write_text("{")
    ((finding,)) = (await check_notes(host))[1]
    assert str(note.path) in finding.message
    state_directory.chmod(0o777)
    ((finding,)) = (await check_notes(host))[1]
    assert "written to by others" in finding.message


@pytest.fixture
def site(tmp_path):
    """A domain that runs, and its target."""
    image = tmp_path / "fake.raw"
    image.write_bytes(b"x" * 65536)
    return Site(tmp_path, DescribedDomain({"vda": image}))


async def test_a_note_is_there_as_long_as_anything_can_be_left(site, state_directory):
    seen = []

    def look():
        (note,) = (state_directory / "undo").iterdir()
        (pending,) = site.target.glob("fake/*.pending")
        noted, told = json.loads(note.read_bytes()), json.loads(pending.read_bytes())
        assert noted["pending"] | {"domain_xml": ""} == told | {"domain_xml": ""}
        assert noted["pending_path"] == str(pending)
        seen.append(stat.S_IMODE(note.stat().st_mode))

    site.domain.before["snapshot"] = [look]
    assert isinstance(await site.back_up(), BackupDone)
    assert seen == [0o600]
    assert list((state_directory / "undo").iterdir()) == []


async def test_a_backup_that_fails_keeps_no_note(site, state_directory):
    def fail():
        raise OSError("broken")

    site.domain.before["snapshot"] = [fail]
    assert isinstance(await site.back_up(), BackupFailed)
    assert list((state_directory / "undo").iterdir()) == []
    assert list(site.target.glob("*/*")) == []


async def test_a_note_that_cannot_be_written_ends_the_backup_before_anything_is_touched(
    site, state_directory
):
    state_directory.write_text("no directory")
    failed = await site.back_up()
    assert str(state_directory) in failed.error
    assert not {"snapshot", "freeze", "prepare_quiesce"} & {*site.domain.calls}
    assert list(site.target.iterdir()) == []


async def test_a_state_directory_without_room_is_told_as_such(site, state_directory, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("virtbackup_async.files.target_path.TargetPath.write_new", full)
    failed = await site.back_up()
    assert f"cannot note the backup in {state_directory}: No space left" in failed.error
    assert "target is full" not in failed.error
    assert "snapshot" not in site.domain.calls
    assert list(site.target.iterdir()) == []


async def test_nor_is_one_written_into_a_target(site, monkeypatch):
    monkeypatch.delenv("VIRTBACKUP_STATE_DIRECTORY")
    site.settings["state_directory"] = str(site.target / "state")
    failed = await site.back_up()
    assert "lies in the target" in failed.error
    assert "snapshot" not in site.domain.calls
    assert list(site.target.iterdir()) == []


async def test_the_next_backup_undoes_what_the_host_noted_though_the_file_is_gone(
    site, state_directory
):
    image = site.domain.own["vda"]
    overlay = make_overlay(image.with_name("fake.raw.vbk-0a0b0c0d"), image)
    site.domain.live, site.domain.persistent = {"vda": overlay}, {"vda": overlay}
    disk = PendingDisk(str(image), "raw", str(overlay), f"{NAME}_vda.raw")
    pending = Pending(
        NAME, 3, "fake", "<domain/>", {"vda": disk}, "1.0.0", DATE, Packager("directory"),
        site.domain.uuid,
    )  # fmt: skip
    path = site.target / "fake" / f"{NAME}.json.pending"
    notes = HostNotes(state_directory)
    await notes.create(pending, *located(path))
    await notes.create(replace(pending, domain_uuid=UUID[:-1] + "9"), *located(path))
    assert isinstance(await site.back_up(), BackupDone)
    assert site.domain.live == {"vda": image}
    assert not overlay.exists()
    # Another domain that had the name then keeps what is noted of it.
    (left,) = (await notes.scan()).notes
    assert left.pending.domain_uuid == UUID[:-1] + "9"


@pytest.mark.parametrize("link", [None, "image", "target"])
async def test_an_image_in_a_target_is_not_backed_up(tmp_path, link):
    """Its header may name any file of the host, which the backup would read."""
    target = tmp_path / "target"
    target.mkdir()
    inside = target / "vda.raw"
    inside.write_bytes(b"x" * 65536)
    image = inside
    if link == "image":
        image = tmp_path / "linked.raw"
        image.symlink_to(inside)
    if link == "target":
        (tmp_path / "real").mkdir()
        inside.rename(tmp_path / "real" / inside.name)
        target.rmdir()
        target.symlink_to(tmp_path / "real")
        image = tmp_path / "real" / inside.name
    site = Site(tmp_path, DescribedDomain({"vda": image}))
    failed = await site.back_up()
    assert f"lies in the target {site.target}" in failed.error
    assert "snapshot" not in site.domain.calls


async def test_found_is_told_before_it_is_undone(killed):
    await killed.note()
    killed.path.unlink()
    await killed.clean()
    (found,) = killed.events_of(PendingFound)
    assert (found.domain, found.pending) == ("evil", str(killed.path))


async def test_the_note_counts_and_not_its_pending_file(killed):
    note = await killed.note()
    changed = replace(note.pending, quiesce=not note.pending.quiesce)
    dead = await dead_backup(
        Notes((note,)), FoundPending(changed, TargetFile.of(note.pending_path))
    )
    assert dead.note == note
    assert dead.pending == note.pending
