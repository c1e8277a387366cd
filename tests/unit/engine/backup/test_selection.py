"""engine/backup/selection.py: what is left out never takes the other disks along."""

import os
import subprocess
from pathlib import Path

import pytest

from lab.encrypted import encrypted_image
from virtbackup_async.catalog.host_notes import HostNotes
from virtbackup_async.engine.backup.selection import select_disks
from virtbackup_async.engine.host_state import Host
from virtbackup_async.errors import DiskNotFoundError, ImageError, RollbackError
from virtbackup_async.model.domain import NOT_WANTED, DomainInfo

UUID = "b9ef5a09-6e0f-4a44-9e2b-5e5f7a1d2c3b"


def qemu_img(*words):
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def disk(dev, path, *, driver="qcow2", device="disk", inside=""):
    return (
        f"<disk type='file' device='{device}'><driver name='qemu' type='{driver}'/>"
        f"<source file='{path}'>{inside}</source><target dev='{dev}'/></disk>"
    )


def domain(*elements, active=False):
    xml = f"<domain><name>web</name><devices>{''.join(elements)}</devices></domain>"
    return DomainInfo("web", UUID, 1 if active else -1, active, True, xml)


@pytest.fixture
def good(tmp_path):
    """The element of a disk that can be taken by any method."""
    qemu_img("create", "-f", "qcow2", tmp_path / "good", "1M")
    return disk("vda", tmp_path / "good")


async def select(info, wanted, *, pull=False, targets=()):
    host = Host(HostNotes(Path("/nonexistent")), tuple(targets))
    return await select_disks(info, wanted, host, pull=pull)


def reasons(selection):
    return {disk.dev: disk.reason for disk in selection.left_out}


@pytest.mark.parametrize("pull", [False, True])
@pytest.mark.parametrize("wrong", ["missing", "no qcow2", "chain"])
async def test_a_disk_with_something_wrong_leaves_the_others_alone(tmp_path, good, wrong, pull):
    path = tmp_path / "bad"
    if wrong == "no qcow2":
        path.write_bytes(b"x" * 4096)
    elif wrong == "chain":
        qemu_img("create", "-u", "-f", "qcow2", "-b", tmp_path / "none", "-F", "qcow2", path, "1M")
    selection = await select(domain(good, disk("vdb", path)), (), pull=pull)
    assert [disk.dev for disk in selection.disks] == ["vda"]
    (broken,) = selection.broken
    assert broken.dev == "vdb"
    assert set(selection.others) == set(reasons(selection)) == {"vdb"}
    assert (broken.error.hint is not None) == (wrong == "missing")


async def test_the_only_disk_with_something_wrong_is_the_error(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        await select(domain(disk("vda", tmp_path / "missing")), ())


async def test_a_disk_that_is_wanted_and_not_there_is_broken(good):
    selection = await select(domain(good), ["vda", "vdz"])
    (broken,) = selection.broken
    assert "no disk vdz, it has vda" in broken.error.message
    # libvirt would refuse a snapshot that names it.
    assert selection.others == ()
    assert "no disk vdz" in reasons(selection)["vdz"]


async def test_a_disk_that_is_wanted_and_unfit_is_broken(tmp_path, good):
    cdrom = disk("sda", tmp_path / "x", device="cdrom")
    selection = await select(domain(good, cdrom), ["vda", "sda"])
    (broken,) = selection.broken
    assert "sda cannot be backed up: a cdrom" in broken.error.message
    assert reasons(selection) == {"sda": "a cdrom"}
    assert selection.others == ("sda",)


async def test_a_disk_that_is_not_wanted_is_never_looked_at(tmp_path, good):
    selection = await select(domain(good, disk("vdb", tmp_path / "missing")), ["vda"])
    assert selection.broken == ()
    assert reasons(selection) == {"vdb": NOT_WANTED}


async def test_an_image_in_a_target_is_broken(tmp_path, good):
    target = tmp_path / "target"
    target.mkdir()
    base, top = target / "base", tmp_path / "top"
    qemu_img("create", "-f", "qcow2", base, "1M")
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "qcow2", top, "1M")
    described = domain(good, disk("vdb", base), disk("vdc", top))
    selection = await select(described, (), targets=[target])
    assert [disk.dev for disk in selection.disks] == ["vda"]
    assert [disk.dev for disk in selection.broken] == ["vdb", "vdc"]
    assert all("lies in the target" in disk.error.message for disk in selection.broken)


async def test_no_disk_at_all_is_an_error():
    with pytest.raises(DiskNotFoundError, match="it has none"):
        await select(domain(), ())


async def test_an_overlay_of_ours_is_an_error_for_all(tmp_path, good):
    overlay = tmp_path / "bad.vbk-00000000"
    with pytest.raises(RollbackError, match="clean -b"):
        await select(domain(good, disk("vdb", overlay)), ())


@pytest.mark.parametrize("pull", [False, True])
async def test_a_disk_with_a_block_job_is_broken(tmp_path, good, pull):
    with_job = disk("vdb", tmp_path / "x").replace("</disk>", "<mirror type='file'/></disk>")
    selection = await select(domain(good, with_job, active=True), (), pull=pull)
    assert [disk.dev for disk in selection.disks] == ["vda"]
    assert "a block job works on vdb" in selection.broken[0].error.message


async def test_data_in_another_file_are_served_and_not_copied(tmp_path, good):
    image = tmp_path / "m"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path}/m.data", image, "1M")
    described = domain(good, disk("vdb", image))
    selection = await select(described, ())
    assert selection.broken == ()
    assert f"in another file, {tmp_path}/m.data: only `method: pull`" in reasons(selection)["vdb"]
    served = await select(described, (), pull=True)
    assert served.chains["vdb"][0].data_file == tmp_path / "m.data"
    assert served.left_out == ()


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
async def test_an_encrypted_disk_of_a_domain_that_is_off_is_kept_as_it_is(
    tmp_path, good, image_format
):
    image = encrypted_image(tmp_path / "l", "luks" if image_format == "raw" else "qcow2")
    encrypted = disk("vdb", image, driver=image_format, inside="<encryption format='luks'/>")
    selection = await select(domain(good, encrypted), (), pull=True)
    assert set(selection.chains) == {"vda"}
    formats = {disk.dev: disk.format for disk in selection.disks}
    assert formats == {"vda": "raw", "vdb": "luks" if image_format == "raw" else "qcow2"}
    assert selection.in_plain_text == ()


async def test_an_encrypted_disk_that_qemu_serves_is_told_of(tmp_path, good):
    encrypted = disk("vdb", tmp_path / "l", inside="<encryption format='luks'/>")
    selection = await select(domain(good, encrypted, active=True), (), pull=True)
    assert selection.in_plain_text == ("vdb",)


async def test_an_overlay_on_an_encrypted_image_is_kept_as_it_is(tmp_path, good):
    base, top = tmp_path / "base", tmp_path / "top"
    encrypted_image(base, "qcow2")
    qemu_img("create", "-u", "-f", "qcow2", "-b", base, "-F", "qcow2", top, "1M")
    selection = await select(domain(good, disk("vdb", top)), (), pull=True)
    assert set(selection.chains) == {"vda"}
    kept = next(disk for disk in selection.disks if disk.dev == "vdb")
    assert [image.path for image in kept.backing] == [base]


async def test_what_qemu_nbd_cannot_read_below_a_disk_is_the_reason(tmp_path, good):
    base, top = tmp_path / "base", tmp_path / "top"
    qemu_img("create", "-f", "vmdk", base, "1M")
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "vmdk", top, "1M")
    selection = await select(domain(good, disk("vdb", top)), (), pull=True)
    assert f"{base}, is vmdk" in reasons(selection)["vdb"]
    copied = await select(domain(good, disk("vdb", top)), ())
    assert [disk.dev for disk in copied.disks] == ["vda", "vdb"]


async def test_persistent_memory_is_named_and_left_to_no_snapshot(good):
    memory = "<memory model='nvdimm'><source><path>/p</path></source></memory>"
    selection = await select(domain(good, memory), ())
    assert reasons(selection) == {"nvdimm0": "persistent memory in /p"}
    assert selection.others == ()


async def test_an_image_that_cannot_be_opened_for_long_is_not_waited_for(tmp_path, good):
    os.mkfifo(tmp_path / "fifo")
    selection = await select(domain(good, disk("vdb", Path(tmp_path / "fifo"))), ())
    assert [disk.dev for disk in selection.broken] == ["vdb"]
