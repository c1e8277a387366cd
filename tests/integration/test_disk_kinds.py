"""The table of docs/reference/disks.md, on real QEMU: which disks are backed up and restored.

A row is a way to make a disk. Of a disk with a ``yes`` a domain beside the original is started, and
its image compared with what the guest saw; of one with a ``no`` the reason is compared.
"""

import base64
import random
import re
import tempfile
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from anyio import fail_after, to_thread

from fakes.nbd_servers import qemu_nbd
from lab.disks import DiskSpec
from lab.domains import LabDomain
from lab.encrypted import KEY, decrypted, encrypted_image
from lab.process import LabError, run
from recording import Recorder, back_up, configure, leftovers
from virtbackup_async.catalog.host_notes import HostNotes
from virtbackup_async.engine.backup.selection import select_disks
from virtbackup_async.engine.host_state import Host
from virtbackup_async.engine.inventory.chosen_backup import find_backup
from virtbackup_async.engine.restore.define import (
    DefineRequest,
    restore_domain,
)
from virtbackup_async.engine.runtime import open_runtime
from virtbackup_async.errors import DiskNotFoundError
from virtbackup_async.events import DiskSkipped, Warned
from virtbackup_async.images.identity import signature
from virtbackup_async.model.domain import DomainInfo

TEXT = (Path(__file__).parents[2] / "docs/reference/disks.md").read_text()
METHODS = {"snapshot": 0, "pull": 1}
SIZE = 2 << 20
CONTENT = random.Random(5).randbytes(SIZE)
DESCRIPTION = """<secret ephemeral='no' private='yes'><uuid>{}</uuid>
<usage type='volume'><volume>{}</volume></usage></secret>"""


def table():
    """The cells of each row, by its first column: (running, off) by method, and the reason."""
    rows = {}
    _, _, text = TEXT.partition("<!-- compared by tests/integration/test_disk_kinds.py -->\n")
    text, _, _ = text.partition("\n\n")
    for line in re.findall(r"^\|(.*)\|$", text, re.MULTILINE)[2:]:
        name, *cells, reason = (cell.strip() for cell in line.split("|"))
        rows[name] = ({True: cells[:2], False: cells[2:]}, reason)
    return rows


class Place:
    """Where a row makes its images, and what it takes of the host meanwhile."""

    def __init__(self, daemon, directory, stack):
        self.daemon = daemon
        self.directory = directory
        self.stack = stack
        self.content = directory / "content"
        self.content.write_bytes(CONTENT)
        self.expected = CONTENT
        self.devices = ""
        self.secrets = []

    def raw(self, name="disk.raw"):
        path = self.directory / name
        path.write_bytes(CONTENT)
        return path

    def converted(self, image_format):
        path = self.directory / f"disk.{image_format}"
        run("qemu-img", "convert", "-f", "raw", "-O", image_format, self.content, path)
        return path

    def filled(self, path):
        """Write the content into a qcow2 that is there."""
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", self.content, path)
        return path

    def overlay(self, base, base_format):
        path = self.directory / "top.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", base_format, path)
        run("qemu-io", "-f", "qcow2", "-c", "write -P 7 64k 64k", path)
        self.expected = CONTENT[: 64 << 10] + b"\7" * (64 << 10) + CONTENT[128 << 10 :]
        return path

    def loop(self, path):
        device = run("losetup", "--find", "--show", path).strip()
        self.stack.callback(run, "losetup", "--detach", device)
        return device

    def secret(self):
        number = str(uuid.uuid4())
        description = self.directory / "secret.xml"
        description.write_text(DESCRIPTION.format(number, self.directory))
        self.daemon.virsh("secret-define", description)
        self.stack.callback(self.daemon.virsh, "secret-undefine", number)
        self.daemon.virsh("secret-set-value", number, base64.b64encode(KEY.encode()).decode())
        said = f"<encryption format='luks'><secret type='passphrase' uuid='{number}'/></encryption>"
        self.secrets.append(said)
        return said


def disk(source, driver="qcow2", *, kind="file", device="disk", inside="", more="", options=""):
    bus = {"disk": "virtio", "cdrom": "sata", "floppy": "fdc", "lun": "scsi"}[device]
    dev = {"disk": "vdx", "cdrom": "sdx", "floppy": "fda", "lun": "sdx"}[device]
    return (
        f"<disk type='{kind}' device='{device}'><driver name='qemu' type='{driver}' {options}/>"
        f"<source {source}>{inside}</source><target dev='{dev}' bus='{bus}'/>{more}</disk>"
    )


def data_file(place):
    path = place.directory / "meta.qcow2"
    option = f"data_file={place.directory}/data,data_file_raw=on"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", option, path, str(SIZE))
    return disk(f"file='{place.filled(path)}'")


def told(place):
    """The header names an image that is not the one below."""
    base, wrong = place.raw(), place.directory / "wrong.raw"
    path = place.overlay(base, "raw")
    wrong.write_bytes(bytes(SIZE))
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", wrong, path)
    below = f"<format type='raw'/><source file='{base}'/><backingStore/>"
    return disk(f"file='{path}'", more=f"<backingStore type='file'>{below}</backingStore>")


def encrypted(place, image_format):
    path = encrypted_image(place.directory / "disk.luks", image_format)
    prefix = "encrypt." if image_format == "qcow2" else ""
    target = f"driver={image_format},file.driver=file,file.filename={path},{prefix}key-secret=key"
    run("qemu-img", "convert", "-n", "--object", f"secret,id=key,data={KEY}", "-f", "raw",
        "--target-image-opts", place.content, target)  # fmt: skip
    # Where nothing was written, a raw one decrypts to noise.
    place.expected = decrypted(path, image_format)
    assert place.expected[:SIZE] == CONTENT
    driver = "qcow2" if image_format == "qcow2" else "raw"
    return disk(f"file='{path}'", driver, inside=place.secret())


def part_of(place):
    """A file, and the part of it that holds the content."""
    path = place.directory / "whole"
    path.write_bytes(b"x" * (1 << 20) + CONTENT + b"x" * 4096)
    return path, f"<slices><slice type='storage' offset='{1 << 20}' size='{SIZE}'/></slices>"


def slices(place):
    path, part = part_of(place)
    return disk(f"file='{path}'", "raw", inside=part)


def on_a_part(place):
    path, part = part_of(place)
    top = place.overlay(place.raw(), "raw")
    below = f"<format type='raw'/><source file='{path}'>{part}</source><backingStore/>"
    return disk(f"file='{top}'", more=f"<backingStore type='file'>{below}</backingStore>")


def on_encrypted(place):
    """A qcow2 in plain text above an encrypted one."""
    encrypted(place, "luks")
    seen = place.expected
    zeros, base = place.directory / "zeros", place.directory / "disk.luks"
    zeros.write_bytes(bytes(len(seen)))
    top = place.overlay(zeros, "raw")
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "luks", "-b", base, top)
    place.expected = place.expected[:SIZE] + seen[SIZE:]
    below = f"<format type='raw'/><source file='{base}'>{place.secrets[-1]}</source><backingStore/>"
    return disk(f"file='{top}'", more=f"<backingStore type='file'>{below}</backingStore>")


def qcow2_on_block(place):
    device_file = place.directory / "device"
    device_file.write_bytes(bytes(8 << 20))
    device = place.loop(device_file)
    run("qemu-img", "create", "-q", "-f", "qcow2", device, str(SIZE))
    place.filled(device)
    return disk(f"dev='{device}'", kind="block")


def volume(place):
    pool, name = f"pool-{uuid.uuid4()}", place.converted("qcow2").name
    place.content.unlink()
    place.daemon.virsh("pool-create-as", pool, "dir", "--target", place.directory)
    place.stack.callback(place.daemon.virsh, "pool-destroy", pool)
    return disk(f"pool='{pool}' volume='{name}'", kind="volume")


def network(place):
    short = place.stack.enter_context(tempfile.TemporaryDirectory(dir=place.daemon.path))
    served = place.stack.enter_context(qemu_nbd(Path(short), place.raw(), "--export-name", "r"))
    host = f"<host transport='unix' socket='{served.path}'/>"
    return disk("protocol='nbd' name='r'", "raw", kind="network", inside=host)


OPTIONS = (
    "cache='none' io='native' discard='unmap' detect_zeroes='unmap' copy_on_read='on' "
    "error_policy='stop' iothread='1' queues='1' event_idx='on'"
)
SHAPED = """<iotune><total_iops_sec>100000</total_iops_sec></iotune>
<blockio logical_block_size='512' physical_block_size='4096'/>"""

KINDS = {
    "raw file": lambda place: disk(f"file='{place.raw()}'", "raw"),
    "qcow2 file": lambda place: disk(f"file='{place.converted('qcow2')}'"),
    "qcow2 file on another image": lambda place: disk(
        f"file='{place.overlay(place.converted('qcow2'), 'qcow2')}'"
    ),
    "qcow2 file on a block device": lambda place: disk(
        f"file='{place.overlay(place.loop(place.raw()), 'raw')}'"
    ),
    "qcow2 file, its XML names another image below than its header": told,
    "qcow2 file with an external data file": data_file,
    "qcow2 file, encrypted (LUKS)": lambda place: encrypted(place, "qcow2"),
    "raw file, encrypted (LUKS)": lambda place: encrypted(place, "luks"),
    "qcow2 file on an encrypted image (LUKS)": on_encrypted,
    "raw part of a file (`<slices>`)": slices,
    "qcow2 file on a part of a file (`<slices>`)": on_a_part,
    "file of another format (vdi)": lambda place: disk(f"file='{place.converted('vdi')}'", "vdi"),
    "raw block device": lambda place: disk(f"dev='{place.loop(place.raw())}'", "raw", kind="block"),
    "qcow2 on a block device": qcow2_on_block,
    "volume of a storage pool": volume,
    "network disk": network,
    "any driver options (`cache`, `discard`, `copy_on_read`, `iothread`)": lambda place: disk(
        f"file='{place.converted('qcow2')}'", options=OPTIONS
    ),
    "`startupPolicy`, `<iotune>`, `<blockio>`": lambda place: disk(
        f"file='{place.converted('qcow2')}' startupPolicy='mandatory'", more=SHAPED
    ),
    "`<readonly>`": lambda place: disk(f"file='{place.raw()}'", "raw", more="<readonly/>"),
    "`<shareable>`": lambda place: disk(f"file='{place.raw()}'", "raw", more="<shareable/>"),
    "`<transient>`": lambda place: disk(f"file='{place.raw()}'", "raw", more="<transient/>"),
    "`device='cdrom'`": lambda place: disk(f"file='{place.raw()}'", "raw", device="cdrom"),
    "`device='floppy'`": lambda place: disk(f"file='{place.raw()}'", "raw", device="floppy"),
    "directory (`type='dir'`)": lambda place: disk(
        f"dir='{place.directory}'", "fat", kind="dir", more="<readonly/>"
    ),
}
# Hardware that a lab does not have: what is said of it is held against the table all the same.
ABSENT = {
    "`device='lun'`": disk("dev='/dev/sdz'", "raw", kind="block", device="lun"),
    "`type='nvme'`": disk("type='pci' namespace='1'", "raw", kind="nvme"),
    "`type='vhostuser'`": disk("type='unix' path='/run/x'", "raw", kind="vhostuser"),
    "`type='vhostvdpa'`": disk("dev='/dev/vhost-vdpa-0'", "raw", kind="vhostvdpa"),
}
NAMES = ("vdx", "sdx", "fda")


def test_the_table_has_a_row_for_each_kind_and_no_other():
    assert list(table()) == [name for name in table() if name in {*KINDS, *ABSENT}]
    assert set(table()) == {*KINDS, *ABSENT}


@contextmanager
def site(daemon, make_domain, directory, name, *, active):
    """A domain with an ordinary disk and the one of the row, running but paused, or off."""
    images = directory / "images"
    images.mkdir()
    with ExitStack() as stack:
        place = Place(daemon, images, stack)
        element = KINDS[name](place)
        domain = make_domain(
            DiskSpec("vda", size_bytes=1 << 20, fs=None), agent=False, boot=False,
            devices=element, memory="<iothreads>1</iothreads>",
        )  # fmt: skip
        if active:
            domain.start_paused()
        try:
            yield domain, place
        finally:
            domain.destroy()


@pytest.mark.parametrize("active", [True, False], ids=["running", "off"])
@pytest.mark.parametrize("name", KINDS)
async def test_a_kind_of_disk(daemon, make_domain, tmp_path, name, active):
    cells, reason = table()[name]
    opening = site(daemon, make_domain, tmp_path, name, active=active)
    domain, place = await to_thread.run_sync(opening.__enter__)
    try:
        for method, column in METHODS.items():
            work = tmp_path / method
            work.mkdir()
            scratch = work / "scratch"
            scratch.mkdir()
            options = {"method": method, "scratch": str(scratch), "packager": "directory"}
            config = configure(work, daemon.uri, [domain.name], **options)
            recorder = await back_up(config, Recorder(work / "frozen"))
            assert recorder.done
            skipped = {event.disk: event.reason for event in recorder.of(DiskSkipped)}
            said = [skipped[dev] for dev in NAMES if dev in skipped]
            assert ("no" if said else "yes") == cells[active][column], (method, said)
            if said:
                assert reason in said[0]
            else:
                await check_twin(daemon, config, domain, place, work / "restored")
            assert list(scratch.iterdir()) == leftovers(tmp_path) == []
            is_plain = active and method == "pull" and "LUKS" in name
            warned = [event.message for event in recorder.of(Warned)]
            assert any("plain text" in message for message in warned) == is_plain
    finally:
        await to_thread.run_sync(opening.__exit__, None, None, None)


async def check_twin(daemon, config, domain, place, target):
    """Restore the backup as another domain, let QEMU open it, and compare its disk."""
    found = await find_backup(config, "all", domain.name, None)
    wanted = DefineRequest(found.definition, found.path.parent, target, new_name="twin")
    with fail_after(60):
        async with open_runtime(config, lambda _event: None) as runtime:
            await restore_domain(runtime, wanted)
    await to_thread.run_sync(started_and_compared, daemon, domain, place)


def seen_above_encrypted(top, base):
    raw = top.with_name("seen")
    chain = (
        f"driver=qcow2,file.driver=file,file.filename={top},backing.driver=luks,"
        f"backing.file.driver=file,backing.file.filename={base},backing.key-secret=key"
    )
    run("qemu-img", "convert", "-U", "--object", f"secret,id=key,data={KEY}", "--image-opts", chain,
        "-O", "raw", raw)  # fmt: skip
    return raw.read_bytes()


def started_and_compared(daemon, domain, place):
    twin = LabDomain(daemon, "twin", domain.console, agent=False)
    try:
        twin.start_paused()
        element = twin.xml().find("devices/disk/target[@dev='vdx']/..")
        path = Path(element.find("source").get("file"))
        driver = element.find("driver").get("type")
        below = element.find("backingStore/source")
        if below is not None and below.find("encryption") is not None:
            seen = seen_above_encrypted(path, Path(below.get("file")))
        elif element.find(".//encryption") is not None:
            seen = decrypted(path, "luks" if driver == "raw" else driver)
        else:
            raw = path.with_name("seen")
            run("qemu-img", "convert", "-U", "-f", driver, "-O", "raw", path, raw)
            seen = raw.read_bytes()
        assert seen == place.expected
        assert str(place.directory) not in daemon.virsh("dumpxml", "twin")
    finally:
        twin.destroy()
        daemon.virsh("undefine", "twin")


@pytest.mark.parametrize(
    "name",
    [
        "qcow2 file on a block device",
        "qcow2 file with an external data file",
        "qcow2 file, encrypted (LUKS)",
        "qcow2 on a block device",
    ],
)
async def test_backups_into_a_repository_go_on_through_a_night_that_is_off(
    daemon, make_domain, tmp_path, name
):
    opening = site(daemon, make_domain, tmp_path, name, active=True)
    domain, place = await to_thread.run_sync(opening.__enter__)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    options = {"scratch": str(scratch), "packager": "repository", "audit_percent": 0}
    config = configure(tmp_path, daemon.uri, [domain.name], **options)
    try:
        for night, active in enumerate((True, False, True)):
            if night == 2:
                await to_thread.run_sync(domain.start_paused)
            if night != 1:
                at = night << 16
                await to_thread.run_sync(domain.qemu_io, "vdx", f"write -f -P {night + 3} {at} 64k")
                patch = bytes([night + 3]) * (64 << 10)
                place.expected = place.expected[:at] + patch + place.expected[at + len(patch) :]
            if not active:
                await to_thread.run_sync(domain.destroy)
            recorder = await back_up(config, Recorder(tmp_path / "frozen"))
            assert recorder.done.missing == ()
            await check_twin(daemon, config, domain, place, tmp_path / f"restored-{night}")
            found = await find_backup(config, "all", domain.name, None)
            reading = found.definition.records["vdx"].reading
            is_kept = not active and "LUKS" in name
            assert (reading is None) == is_kept
        if "data file" in name:
            assert "in another file" in reading.reason
        else:
            assert reading.base is not None, reading.reason
            assert reading.read_bytes < SIZE
    finally:
        await to_thread.run_sync(opening.__exit__, None, None, None)


@pytest.mark.parametrize("active", [True, False], ids=["running", "off"])
@pytest.mark.parametrize("name", ABSENT)
async def test_a_kind_of_disk_that_is_not_here(tmp_path, name, active):
    host = Host(HostNotes(tmp_path), ())
    cells, reason = table()[name]
    xml = f"<domain><devices>{ABSENT[name]}</devices></domain>"
    info = DomainInfo("web", str(uuid.uuid4()), 1 if active else -1, active, True, xml)
    for method, column in METHODS.items():
        assert cells[active][column] == "no"
        with pytest.raises(DiskNotFoundError, match=re.escape(reason)):
            await select_disks(info, (), host, pull=method == "pull")


async def test_a_disk_with_a_block_job_lets_the_others_be_backed_up(daemon, make_domain, tmp_path):
    """It is not all that was to be, and says so."""
    domain = await to_thread.run_sync(
        lambda: make_domain(
            DiskSpec("vda", fs=None), DiskSpec("vdb", fs=None), agent=False, boot=False
        )
    )
    await to_thread.run_sync(domain.start_paused)
    copy = tmp_path / "copy"
    words = ("blockcopy", domain.name, "vdb", copy, "--transient-job", "--wait")
    await to_thread.run_sync(daemon.virsh, *words)
    for method in METHODS:
        work = tmp_path / method
        scratch = work / "scratch"
        scratch.mkdir(parents=True)
        options = {"method": method, "scratch": str(scratch), "packager": "directory"}
        config = configure(work, daemon.uri, [domain.name], **options)
        recorder = await back_up(config, Recorder(work / "frozen"))
        assert recorder.done.missing == ("vdb",)
        (warned,) = recorder.of(Warned)
        assert "vdb will not be in the backup: a block job works on vdb" in warned.message
        found = await find_backup(config, "all", domain.name, None)
        assert set(found.definition.disks) == {"vda"}
        assert "a block job" in found.definition.skipped["vdb"]
        assert leftovers(work) == []
    with pytest.raises(LabError):
        await to_thread.run_sync(daemon.virsh, "blockjob", domain.name, "vda", "--abort")
    await to_thread.run_sync(daemon.virsh, "blockjob", domain.name, "vdb", "--abort")


def test_writing_to_a_block_device_is_seen_and_reading_is_not(tmp_path):
    """QEMU has a name of its own for a device, so the times of this one say nothing."""
    content = tmp_path / "device"
    content.write_bytes(CONTENT)
    device = Path(run("losetup", "--find", "--show", content).strip())
    try:
        before = signature(device)
        run("dd", f"if={device}", "of=/dev/null", "bs=64k", "iflag=direct")
        assert signature(device) == before
        run("dd", "if=/dev/zero", f"of={device}", "bs=4k", "count=1", "oflag=direct")
        assert signature(device) != before
    finally:
        run("losetup", "--detach", device)


@pytest.mark.parametrize(
    "name",
    [
        "qcow2 file on another image",
        "qcow2 file, its XML names another image below than its header",
        "qcow2 file on an encrypted image (LUKS)",
    ],
)
async def test_a_domain_is_defined_as_before(daemon, make_domain, tmp_path, name):
    """The images below a disk too: the next start goes by the definition."""
    opening = site(daemon, make_domain, tmp_path, name, active=True)
    domain, _ = await to_thread.run_sync(opening.__enter__)
    try:
        before = await to_thread.run_sync(daemon.virsh, "dumpxml", "--inactive", domain.name)
        for method in METHODS:
            work = tmp_path / method
            scratch = work / "scratch"
            scratch.mkdir(parents=True)
            options = {"method": method, "scratch": str(scratch), "packager": "directory"}
            config = configure(work, daemon.uri, [domain.name], **options)
            recorder = await back_up(config, Recorder(work / "frozen"))
            assert recorder.done
            after = await to_thread.run_sync(daemon.virsh, "dumpxml", "--inactive", domain.name)
            assert after == before
    finally:
        await to_thread.run_sync(opening.__exit__, None, None, None)
