"""The table of overlay.py, row by row, on real images under a domain that does what it is told."""

import re
import subprocess

import pytest
from msgspec.structs import replace

from fakes.hypervisor import FakeDomain, FakeHypervisor
from virtbackup_async.engine.undo.overlay import OverlaidDisk, overlaid_disks, revert_overlay
from virtbackup_async.errors import (
    BlockJobError,
    ConnectionFailedError,
    ConnectionLostError,
    DomainGoneError,
    HypervisorError,
    ImageError,
    RollbackError,
    StorageError,
)
from virtbackup_async.host.local import LocalHost
from virtbackup_async.model.backup import Packager, Pending, PendingDisk

MIB = 1 << 20


def qemu(*words):
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path):
    """A raw image under an overlay that holds a write of its own."""
    image, overlay = tmp_path / "vda.img", tmp_path / "vda.img.vbk-1"
    image.write_bytes(b"\x01" * MIB)
    qemu("qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", image, overlay)
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 2 0 64k", overlay)
    return OverlaidDisk("vda", image, "raw", overlay)


@pytest.fixture
def domain(disk):
    """A running domain on the overlay, now and at its next start."""
    domain = FakeDomain({"vda": disk.image})
    domain.live = {"vda": disk.overlay}
    domain.persistent = {"vda": disk.overlay}
    return domain


def pending_of(**disks):
    """A pending backup of the domain."""
    return Pending(
        name="20260301-021500_3_web", domain_id=3, domain_name="web", domain_xml="<domain/>",
        disks=disks, version="1.1.0", date=1772331300, packager=Packager("directory"),
    )  # fmt: skip


def on_overlay(disk, *, committed):
    """What a pending file says of a disk."""
    return PendingDisk(
        str(disk.image), disk.format, str(disk.overlay), "vda.img", committed=committed
    )


async def note(dev):
    """The pending file, for disks that need none."""


def failing(error):
    def act():
        raise error

    return act


def starts_with(image, byte):
    return image.read_bytes()[:65536] == bytes([byte]) * 65536


async def test_a_running_domain_is_committed(disk, domain):
    await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert domain.live == domain.persistent == {"vda": disk.image}
    assert not disk.overlay.exists()


async def test_a_job_that_a_killed_backup_left_is_taken_up_again(disk, domain):
    domain.jobs = frozenset({"vda"})
    await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert "resume_commit" in domain.calls
    assert "commit" not in domain.calls


@pytest.mark.parametrize("by_definition", [True, False])
async def test_a_domain_that_was_saved_on_the_overlay_goes_on_from_its_image(
    disk, domain, by_definition
):
    domain.shut_off()
    domain.saved = {"vda": disk.overlay}
    if not by_definition:
        domain.persistent = {"vda": disk.image}
    await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert domain.saved == domain.persistent == {"vda": disk.image}
    assert starts_with(disk.image, 2)
    assert not disk.overlay.exists()


async def test_an_overlay_stays_while_the_saved_state_names_it(disk, domain):
    domain.shut_off()
    domain.saved = {"vda": disk.overlay}
    domain.before["set_saved_source"] = [failing(HypervisorError("it is damaged"))]
    with pytest.raises(HypervisorError, match="it is damaged") as raised:
        await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert raised.value.disk == "vda"
    assert disk.overlay.exists()


async def test_a_definition_that_still_names_the_overlay_is_corrected(disk, domain):
    domain.live = {"vda": disk.image}
    await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert domain.persistent == {"vda": disk.image}
    assert "commit" not in domain.calls
    assert not disk.overlay.exists()


async def test_a_shut_off_domain_is_committed_by_qemu_img(disk, domain):
    domain.shut_off()
    await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert domain.persistent == {"vda": disk.image}
    assert starts_with(disk.image, 2)
    assert not disk.overlay.exists()


async def test_a_domain_undefined_while_it_is_backed_up_keeps_what_it_wrote(disk, domain):
    domain.shut_off()
    domain.undefine()
    await revert_overlay(
        LocalHost(), FakeHypervisor(), domain, replace(disk, of_this_run=True), note
    )
    assert starts_with(disk.image, 2)
    assert not disk.overlay.exists()


async def test_a_domain_that_is_gone_is_left_to_a_person(disk, domain):
    domain.shut_off()
    domain.undefine()
    with pytest.raises(RollbackError, match="does not know the domain") as raised:
        await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    commands = re.findall("`(.*?)`", raised.value.hint)
    assert disk.overlay.exists()
    assert starts_with(disk.image, 1)
    # What the person is told to do is what helps.
    subprocess.run(commands[0], shell=True, check=True)  # noqa: S602 -- as it is pasted
    assert starts_with(disk.image, 2)
    await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)


async def test_nothing_is_committed_into_an_image_that_the_header_does_not_name(
    disk, domain, tmp_path
):
    other = tmp_path / "other.img"
    other.write_bytes(b"\x09" * MIB)
    qemu("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", other, disk.overlay)
    domain.shut_off()
    with pytest.raises(ImageError, match=f"lies on {other}, not on {disk.image}"):
        await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert starts_with(other, 9)
    assert disk.overlay.exists()


async def test_nor_as_another_format(disk, domain):
    """A guest may write a header of qcow2 into its raw image."""
    domain.shut_off()
    with pytest.raises(ImageError, match="raw, not for qcow2"):
        await revert_overlay(
            LocalHost(), FakeHypervisor(), domain, replace(disk, format="qcow2"), note
        )
    assert starts_with(disk.image, 1)


async def test_a_domain_that_stops_meanwhile_is_committed_by_qemu_img(disk, domain):
    def stop():
        domain.shut_off()
        raise DomainGoneError("domain is not running")

    domain.before["commit"] = [stop]
    await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert starts_with(disk.image, 2)
    assert not disk.overlay.exists()


async def test_a_snapshot_that_never_happened_needs_nothing(disk, domain):
    disk.overlay.unlink()
    domain.live = domain.persistent = {"vda": disk.image}
    await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert "commit" not in domain.calls


async def test_an_overlay_without_data_is_removed(disk, domain):
    disk.overlay.unlink()
    qemu("qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", disk.image, disk.overlay)
    domain.shut_off()
    domain.persistent = {"vda": disk.image}
    await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert not disk.overlay.exists()


async def test_an_overlay_whose_data_was_committed_is_removed(disk, domain):
    domain.shut_off()
    domain.persistent = {"vda": disk.image}
    await revert_overlay(
        LocalHost(), FakeHypervisor(), domain, replace(disk, is_committed=True), note
    )
    assert not disk.overlay.exists()
    assert starts_with(disk.image, 1)


async def test_a_domain_that_stops_right_behind_the_pivot_needs_nothing_more(disk, domain):
    """The overlay still holds what was committed, and the image is newer by now."""
    noted = []

    async def take_note(dev):
        noted.append((dev, domain.calls[-1]))

    def stop():
        domain.persistent = {"vda": disk.image}
        domain.shut_off()
        raise DomainGoneError("domain is not running")

    domain.before["pivot"] = [stop]
    await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, take_note)
    assert noted == [("vda", "commit")]
    assert not disk.overlay.exists()
    assert starts_with(disk.image, 1)


async def test_a_note_that_cannot_be_written_does_not_keep_the_overlay(disk, domain):
    async def full(dev):
        raise StorageError("target is full")

    await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, full)
    assert domain.live == {"vda": disk.image}
    assert not disk.overlay.exists()


async def test_an_overlay_with_data_that_nobody_names_is_left_alone(disk, domain):
    domain.shut_off()
    domain.persistent = {"vda": disk.image}
    with pytest.raises(HypervisorError, match="holds data"):
        await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert disk.overlay.exists()
    assert starts_with(disk.image, 1)


async def test_a_detached_disk_keeps_what_was_written(disk, domain):
    domain.live = {}
    await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert domain.persistent == {"vda": disk.image}
    assert starts_with(disk.image, 2)
    assert not disk.overlay.exists()


async def test_the_overlay_of_a_detached_disk_that_holds_data_is_left_alone(disk, domain):
    domain.live = domain.persistent = {}
    with pytest.raises(HypervisorError, match="holds data"):
        await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert disk.overlay.exists()


async def test_an_image_that_somebody_else_put_there_is_left_alone(disk, domain, tmp_path):
    domain.live = {"vda": tmp_path / "theirs"}
    with pytest.raises(HypervisorError, match="by somebody else"):
        await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert disk.overlay.exists()
    assert "commit" not in domain.calls


async def test_a_lost_connection_is_opened_again(disk, domain):
    hypervisor = FakeHypervisor()
    domain.before["commit"] = [failing(ConnectionLostError("gone"))]
    await revert_overlay(LocalHost(), hypervisor, domain, disk, note)
    assert hypervisor.reconnects == 1
    assert not disk.overlay.exists()


async def test_a_failed_block_job_is_an_error_and_keeps_the_overlay(disk, domain):
    domain.before["commit"] = [failing(BlockJobError("failed"))]
    with pytest.raises(BlockJobError):
        await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert disk.overlay.exists()


async def test_libvirt_gone_for_good_is_given_up(disk, domain, monkeypatch):
    monkeypatch.setattr("virtbackup_async.engine.undo.reconnect.RECONNECT_TIMEOUT_S", 0)

    class Gone(FakeHypervisor):
        async def reconnect(self):
            raise ConnectionFailedError("no answer")

    domain.before["sources"] = [failing(ConnectionLostError("gone"))]
    monkeypatch.setattr("virtbackup_async.engine.undo.reconnect.RECONNECT_INTERVAL_S", 0)
    with pytest.raises(ConnectionFailedError):
        await revert_overlay(LocalHost(), Gone(), domain, disk, note)
    assert disk.overlay.exists()


async def test_a_domain_that_keeps_changing_is_given_up(disk, domain):
    domain.before["commit"] = [failing(DomainGoneError("stopped")) for _ in range(20)]
    with pytest.raises(HypervisorError, match="keeps changing"):
        await revert_overlay(LocalHost(), FakeHypervisor(), domain, disk, note)
    assert disk.overlay.exists()


@pytest.mark.parametrize(("committed", "is_noted"), [(True, False), (False, True), (False, False)])
async def test_only_a_note_of_this_host_says_that_all_is_committed(disk, committed, is_noted):
    """What stands in a target alone could make an undo drop a guest's last writes."""
    named = on_overlay(disk, committed=committed)
    (found,) = overlaid_disks(pending_of(vda=named), is_noted=is_noted).values()
    assert not found.is_committed


async def test_disks_that_got_no_overlay_are_none_to_revert(disk):
    other = PendingDisk("/images/vdb.qcow2", "qcow2", None, "vdb.qcow2")
    pending = pending_of(vda=on_overlay(disk, committed=True), vdb=other)
    found = overlaid_disks(pending, of_this_run=True)
    assert found == {"vda": replace(disk, is_committed=True, of_this_run=True)}
