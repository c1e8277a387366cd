"""docs/reference/domain-states.md, cell by cell: each command on a real domain in each state."""

import filecmp
import os
import signal
from contextlib import contextmanager

import anyio
import libvirt
import pytest
from anyio import to_thread

from lab.disks import DiskSpec
from lab.domains import define, running
from recording import (
    On,
    Recorder,
    assert_at_home,
    back_up,
    configure,
    guest_visible,
    leftovers,
    restore,
)
from virtbackup_async.engine.doctor.examination import DoctorRequest, run_doctor
from virtbackup_async.engine.domain_states import SAVED
from virtbackup_async.engine.inventory.chosen_backup import find_backup
from virtbackup_async.engine.restore.in_place import InPlaceRequest, restore_in_place
from virtbackup_async.engine.runtime import Runtime, open_runtime
from virtbackup_async.errors import HypervisorError
from virtbackup_async.events import Finding, Level, Phase, Warned
from virtbackup_async.hypervisor import open_hypervisor

METHODS = ("snapshot", "pull")


@pytest.fixture
def blank(daemon, request):
    """A domain without a guest, shut off; it has something on its disks."""
    disks = [DiskSpec("vda", fs=None), DiskSpec("vdb", "raw", fs=None)]
    # With a channel for an agent, for then libvirt makes a directory that the socket has place in.
    domain = define(daemon, "state-" + request.node.name[-30:], disks)
    domain.start()
    for dev in ("vda", "vdb"):
        domain.qemu_io(dev, "write -f -P 7 3M 2M")
    domain.destroy()
    yield domain
    domain.undefine()


@contextmanager
def saved(domain):
    domain.root.virsh("managedsave", domain.name)
    try:
        yield
    finally:
        if is_saved(domain):
            domain.root.virsh("managedsave-remove", domain.name)


def is_saved(domain):
    return (
        domain.root.virsh("list", "--all", "--with-managed-save", "--name").strip() == domain.name
    )


def config_of(domain, directory, **options):
    options = {"packager": "directory", **options}
    return configure(directory, domain.root.uri, [domain.name], **options)


async def backed_up(domain, directory, **options):
    """The events of a backup that is good, and restores to what the disks hold."""
    config = config_of(domain, directory, **options)
    recorder = await back_up(config, Recorder(directory / "still"))
    assert recorder.done
    assert leftovers(directory) == []
    expected = await to_thread.run_sync(guest_visible, domain, directory / "expected")
    await restore(config, domain.name, directory / "restored")
    for dev, image in domain.images().items():
        (found,) = (directory / "restored").glob(f"{image.stem}.*")
        if found.suffix == ".raw":
            assert filecmp.cmp(found, expected[dev], shallow=False), dev
    return recorder


async def in_place(domain, config, *, remove_saved=False):
    found = await find_backup(config, "all", domain.name, None)
    async with open_hypervisor(config.uri) as hypervisor:
        request = InPlaceRequest(found.definition, found.path.parent, remove_saved=remove_saved)
        return await restore_in_place(Runtime(config, lambda _event: None, hypervisor), request)


async def examined(domain, directory, **options):
    config = config_of(domain, directory, **options)
    recorder = Recorder(directory / "still")
    async with open_runtime(config, recorder) as runtime:
        await run_doctor(runtime, DoctorRequest())
    return [found for found in recorder.of(Finding) if found.check == "domain"]


def warnings(recorder):
    return [event.message for event in recorder.of(Warned)]


@pytest.mark.parametrize("method", METHODS)
async def test_a_saved_domain_is_marked_as_crash_consistent(blank, method, tmp_path):
    blank.start()
    with saved(blank):
        recorder = await backed_up(blank, tmp_path, method=method)
        assert recorder.done.quiesced is False
        assert recorder.done.not_quiesced == SAVED
        assert warnings(recorder)[0].endswith(SAVED)
        (finding,) = await examined(blank, tmp_path, method=method)
        assert (finding.level, finding.message) == (Level.WARNING, SAVED)
        assert is_saved(blank)


async def test_a_saved_domain_is_not_restored_in_place_unless_its_memory_may_go(blank, tmp_path):
    config = config_of(blank, tmp_path)
    assert (await back_up(config, Recorder(tmp_path / "still"))).done
    before = guest_visible(blank, tmp_path / "before")
    blank.start()
    blank.qemu_io("vdb", "write -f -P 9 3M 2M")
    with saved(blank):
        after = guest_visible(blank, tmp_path / "after")
        with pytest.raises(HypervisorError, match=r"is saved.*--remove-managed-save"):
            await in_place(blank, config)
        assert is_saved(blank)
        again = guest_visible(blank, tmp_path / "again")
        assert all(filecmp.cmp(after[dev], again[dev], shallow=False) for dev in after)

        await in_place(blank, config, remove_saved=True)
        assert not is_saved(blank)
    now = guest_visible(blank, tmp_path / "now")
    assert all(filecmp.cmp(before[dev], now[dev], shallow=False) for dev in before)


async def test_a_domain_that_is_saved_on_its_overlays_goes_on_from_its_images(blank, tmp_path):
    """The save image names the overlays, whatever the definition says."""
    images = blank.images()
    blank.start()

    def save():
        for dev in ("vda", "vdb"):
            blank.qemu_io(dev, "write -f -P 8 9M 1M")
        blank.root.virsh("managedsave", blank.name)

    recorder = await back_up(
        config_of(blank, tmp_path, method="snapshot"), On(tmp_path / "s").arm(Phase.COPYING, save)
    )
    assert recorder.done
    assert_at_home(blank, images)
    assert is_saved(blank)
    blank.start()
    assert blank.root.virsh("domstate", "--reason", blank.name).strip() == "running (restored)"
    assert_at_home(blank, images)
    assert images["vdb"].read_bytes()[9 << 20 : 10 << 20] == b"\x08" * (1 << 20)


@pytest.mark.parametrize("method", METHODS)
async def test_a_paused_domain_stays_paused(blank, method, tmp_path):
    blank.start_paused()
    recorder = await backed_up(blank, tmp_path, method=method, quiesce=True)
    assert recorder.done.not_quiesced == "guest is paused"
    assert blank.state() == "paused"
    with pytest.raises(HypervisorError, match="is running"):
        await in_place(blank, config_of(blank, tmp_path))


@pytest.mark.parametrize("method", METHODS)
async def test_a_guest_that_crashed_and_is_kept_stays_so(blank, method, tmp_path):
    xml = blank.root.virsh("dumpxml", "--inactive", blank.name)
    xml = xml.replace("<on_crash>destroy<", "<on_crash>preserve<")
    description = tmp_path / "kept.xml"
    description.write_text(xml.replace("</devices>", "<panic model='isa'/></devices>"))
    blank.root.virsh("define", description)
    blank.start()
    # As the kernel of a guest tells it.
    blank.root.virsh("qemu-monitor-command", "--hmp", blank.name, "o /b 0x505 1")
    blank._wait(lambda: blank.state() == "crashed", "crash", 30)
    images = blank.images()
    recorder = await backed_up(blank, tmp_path, method=method, quiesce=True)
    assert recorder.done.not_quiesced == "guest has crashed"
    assert blank.root.virsh("domstate", "--reason", blank.name).strip() == "crashed (panicked)"
    assert_at_home(blank, images)
    with pytest.raises(HypervisorError, match="is running"):
        await in_place(blank, config_of(blank, tmp_path))


@pytest.mark.parametrize("method", METHODS)
async def test_a_domain_whose_qemu_was_killed_is_shut_off(blank, method, tmp_path):
    blank.start()
    os.kill(blank.root.guest_pids()[blank.name], signal.SIGKILL)
    blank.wait_shut_off()
    assert (await backed_up(blank, tmp_path, method=method)).done.quiesced is None


@pytest.mark.parametrize("method", METHODS)
async def test_a_transient_domain_is_backed_up(blank, method, tmp_path):
    description = tmp_path / "transient.xml"
    description.write_text(blank.root.virsh("dumpxml", blank.name))
    blank.root.virsh("undefine", blank.name)
    blank.root.virsh("create", description)
    images = blank.images()
    config = config_of(blank, tmp_path, method=method)
    try:
        recorder = await back_up(config, Recorder(tmp_path / "still"))
        assert recorder.done
        assert blank.images() == images
        assert leftovers(blank.root.images) == leftovers(tmp_path) == []
    finally:
        blank.root.virsh("destroy", blank.name)
        blank.root.virsh("define", description)


@pytest.mark.parametrize("method", METHODS)
async def test_a_domain_that_goes_with_its_client_is_backed_up(blank, method, tmp_path):
    connection = libvirt.open(blank.root.uri)
    try:
        domain = connection.lookupByName(blank.name)
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_AUTODESTROY)
        images = blank.images()
        assert (await backed_up(blank, tmp_path, method=method)).done
        assert_at_home(blank, images)
    finally:
        connection.close()


@pytest.mark.parametrize("method", METHODS)
async def test_a_domain_that_is_defined_anew_meanwhile_keeps_its_new_definition(
    blank, method, tmp_path
):
    blank.start()
    images = blank.images()

    def define_anew():
        xml = blank.root.virsh("dumpxml", "--inactive", blank.name)
        description = tmp_path / "anew.xml"
        description.write_text(xml.replace("<on_crash>", "<!-- anew --><on_crash>"))
        blank.root.virsh("define", description)

    config = config_of(blank, tmp_path, method=method)
    assert (await back_up(config, On(tmp_path / "still").arm(Phase.COPYING, define_anew))).done
    assert_at_home(blank, images)


@pytest.mark.parametrize("method", METHODS)
async def test_a_disk_with_a_block_job_is_missed_and_its_job_left_alone(blank, method, tmp_path):
    blank.start()
    copy = blank.root.path / f"{method}-copy.qcow2"
    blank.root.virsh("blockcopy", blank.name, "vda", copy, "--transient-job")
    try:
        config = config_of(blank, tmp_path, method=method, quiesce=True)
        recorder = await back_up(config, Recorder(tmp_path / "still"))
        assert recorder.done.missing == ("vda",)
        (said,) = [it.message for it in recorder.of(Warned) if "block job" in it.message]
        assert "a block job works on vda" in said
        assert f"virsh blockjob {blank.name} vda --abort" in said
        assert blank.xml().find("devices/disk/mirror") is not None
    finally:
        blank.root.virsh("blockjob", blank.name, "vda", "--abort")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("method", METHODS)
async def test_the_job_of_somebody_else_is_said_at_once_and_left_alone(blank, method, tmp_path):
    blank.start()
    job, socket = tmp_path / "job.xml", blank.root.path / "other.sock"
    job.write_text(
        f"<domainbackup mode='pull'><server transport='unix' socket='{socket}'/></domainbackup>"
    )
    blank.root.virsh("backup-begin", blank.name, job)
    try:
        config = config_of(blank, tmp_path, method=method)
        with anyio.fail_after(20):
            failed = (await back_up(config, Recorder(tmp_path / "still"))).failed
        assert "another backup job, or a migration, runs" in failed.error
        assert "virsh domjobabort" in failed.error
        assert str(socket) in blank.root.virsh("backup-dumpxml", blank.name)
    finally:
        blank.abort_job()
    assert leftovers(tmp_path) == []


async def test_checkpoints_are_left_alone_while_somebody_elses_job_runs(blank, tmp_path):
    blank.start()
    job, checkpoint = tmp_path / "job.xml", tmp_path / "checkpoint.xml"
    socket = blank.root.path / "other.sock"
    job.write_text(
        f"<domainbackup mode='pull'><server transport='unix' socket='{socket}'/></domainbackup>"
    )
    checkpoint.write_text(
        "<domaincheckpoint><name>theirs</name><disks><disk name='vda' checkpoint='bitmap'/>"
        "<disk name='vdb' checkpoint='no'/></disks></domaincheckpoint>"
    )
    async with open_hypervisor(blank.root.uri) as hypervisor:
        domain = await hypervisor.domain(blank.name)
        blank.root.virsh("backup-begin", blank.name, job, checkpoint)
        try:
            with pytest.raises(HypervisorError, match="theirs is left alone while another job"):
                await domain.delete_checkpoint("theirs", ["vda"])
            with pytest.raises(HypervisorError, match="theirs is left alone while another job"):
                await domain.redefine_checkpoint("theirs", 1, ["vda"])
        finally:
            blank.abort_job()
        assert await domain.redefine_checkpoint("theirs", 1, ["vda"]) == {"vda"}
        assert await domain.delete_checkpoint("theirs", ["vda"])
        assert await domain.checkpoint_names() == ()


async def test_a_suspended_guest_is_pulled_and_not_snapshotted(daemon, tmp_path):
    with running(daemon, "asleep", [DiskSpec("vda")]) as domain:
        await to_thread.run_sync(daemon.virsh, "dompmsuspend", "asleep", "mem")
        domain._wait(lambda: domain.state() == "pmsuspended", "suspend", 30)
        config = config_of(domain, tmp_path, method="snapshot", quiesce=True)
        failed = (await back_up(config, Recorder(tmp_path / "still"))).failed
        assert "the guest is suspended" in failed.error
        assert "method: pull" in failed.error
        (finding,) = await examined(domain, tmp_path)
        assert finding.level is Level.WARNING
        recorder = await backed_up(domain, tmp_path, method="pull", quiesce=True)
        assert recorder.done.not_quiesced == "guest is suspended"
        assert domain.state() == "pmsuspended"
        await to_thread.run_sync(daemon.virsh, "dompmwakeup", "asleep")
