"""``clean`` on real domains whose backup was killed: they come home, and nothing is left."""

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial

import pytest
import yaml
from anyio import to_thread

from lab.disks import DiskSpec
from lab.domains import define
from recording import Recorder, assert_at_home, back_up, configure, leftovers
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.runtime import open_runtime
from virtbackup_async.events import (
    BackupDone,
    BackupRemoved,
    PendingLeft,
    PendingUndone,
    Phase,
    PhaseChanged,
    Warned,
)

MIB = 1 << 20
SLOW = {"packager": "tar", "packager_opts": {"compression": "xz", "compression_lvl": 9}}


@pytest.fixture
def domain(daemon, request):
    """A running domain whose copy takes seconds with the slow packager: it does not compress."""
    specs = [DiskSpec("vda", "raw", fs=None), DiskSpec("vdb", "qcow2", fs=None)]
    domain = define(daemon, "clean-" + request.node.name[-30:], specs, agent=False)
    with domain.images()["vda"].open("r+b") as image:
        image.write(os.urandom(32 * MIB))
    domain.start()
    yield domain
    if domain.name in daemon.virsh("list", "--all", "--name").split():
        domain.undefine()


def kill_backup(config):
    """Run the command, and end it with SIGKILL in the middle of the copy."""
    command = [sys.executable, "-m", "virtbackup_async", "-c", config.path, "backup", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "phase" and event["phase"] == "copying" and event["disk"]:
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


async def clean(config, emit=None, **request):
    """One ``clean`` command; its events."""
    events = Recorder(config.path.parent / "unused")
    async with open_runtime(config, emit or events) as runtime:
        await run_clean(runtime, CleanRequest(**request))
    return events


@pytest.fixture
async def killed(daemon, domain, tmp_path):
    """A configuration whose backup of the domain was killed; the guest has written on since."""
    config = configure(tmp_path, daemon.uri, [domain.name], **SLOW)
    images = domain.images()
    await to_thread.run_sync(kill_backup, config)
    domain.qemu_io("vda", "write -P 7 50M 1M")
    domain.qemu_io("vda", "flush")
    assert domain.images() != images
    return config, images


def assert_kept(images):
    """What the guest wrote while it was on the overlay is in its image."""
    with images["vda"].open("rb") as image:
        image.seek(50 * MIB)
        assert image.read(MIB) == b"\x07" * MIB


def files(config):
    return [path for path in (config.path.parent / "target").rglob("*") if path.is_file()]


def assert_undone(config, events):
    assert len(events.of(PendingUndone)) == 1
    assert not events.of(PendingLeft)
    assert files(config) == []


async def test_a_running_domain_comes_home(killed, domain):
    config, images = killed
    events = await clean(config)
    assert_undone(config, events)
    assert domain.state() == "running"
    assert_at_home(domain, images)
    assert_kept(images)


@pytest.mark.parametrize("how", ["destroyed", "redefined"])
async def test_a_domain_that_does_not_run_keeps_what_it_wrote(killed, domain, daemon, how):
    config, images = killed
    xml = daemon.virsh("dumpxml", "--inactive", domain.name)
    domain.destroy()
    if how == "redefined":
        domain.undefine()
        # As another domain, with another UUID, on the overlays.
        uuid = domain_uuid(xml)
        path = config.path.with_name("again.xml")
        path.write_text(xml.replace(uuid, uuid[:-4] + "beef"))
        daemon.virsh("define", path)
    events = await clean(config, complete=False)
    assert_undone(config, events)
    assert_kept(images)
    assert leftovers(daemon.images) == []
    assert_at_home(domain, images)


async def test_the_disks_of_a_domain_that_is_gone_are_left_to_a_person(killed, domain, daemon):
    config, images = killed
    overlays = domain.images()
    domain.destroy()
    domain.undefine()
    (left,) = (await clean(config, complete=False)).of(PendingLeft)
    assert sorted(leftovers(daemon.images)) == sorted(overlays.values())
    # What the message says to do is what helps.
    for command in re.findall(r"`(qemu-img commit [^`]*)`", left.error):
        await to_thread.run_sync(partial(run_as_pasted, command))
    assert_kept(images)
    assert leftovers(daemon.images) == []
    assert_undone(config, await clean(config, complete=False))


async def test_a_snapshot_of_the_admins_own_is_not_committed(daemon, domain, tmp_path):
    """Whoever can write to the target says that a backup made it."""
    config = configure(tmp_path, daemon.uri, [domain.name], packager="directory")
    images = domain.images()
    own = images["vda"].with_suffix(".snap1")
    disks = [f"--diskspec=vda,snapshot=external,file={own}", "--diskspec=vdb,snapshot=no"]
    daemon.virsh("snapshot-create-as", domain.name, "snap1", "--disk-only", *disks)
    try:
        domain.qemu_io("vda", "write -P 7 1M 1M")
        uuid = domain_uuid(daemon.virsh("dumpxml", domain.name))
        plant(tmp_path / "target", domain.name, uuid, images["vda"], own)
        for version in ("1.0.0", "0.5.6"):
            plant(tmp_path / "target", domain.name, uuid, images["vda"], own, version)
            (left,) = (await clean(config)).of(PendingLeft)
            assert str(own) in left.error
            assert domain.images() == images | {"vda": own}
        recorder = await back_up(config, Recorder(tmp_path / "f"))
        assert "no note of this host" in recorder.failed.error
        assert domain.images() == images | {"vda": own}
    finally:
        daemon.virsh("blockcommit", domain.name, "vda", "--active", "--pivot", "--wait")
        daemon.virsh("snapshot-delete", domain.name, "snap1", "--metadata")
        own.unlink()


def run_as_pasted(command):
    subprocess.run(command, shell=True, check=True)  # noqa: S602 -- a person does


def plant(target, domain, uuid, image, overlay, version="1.0.0"):
    """Write a pending file as somebody does who means harm."""
    name = f"20260301-021500_1_{domain}"
    disk = {"src": str(image), "type": "raw", "snapshot": str(overlay), "committed": True}
    raw = {
        "name": name, "domain_id": 1, "domain_name": domain, "domain_xml": "<domain/>",
        "version": version, "date": 1772331300, "packager": {"type": "directory", "opts": {}},
        "uuid": uuid, "disks": {"vda": disk | {"target": f"{name}_vda.raw"}},
    }  # fmt: skip
    path = target / domain / f"{name}.json.pending"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(raw))


def domain_uuid(xml):
    return xml.partition("<uuid>")[2].partition("</uuid>")[0]


async def test_a_disk_that_somebody_else_changed_is_left_with_all_that_is_there(
    killed, domain, daemon, tmp_path
):
    config, images = killed
    other = tmp_path / "other.raw"
    other.write_bytes(b"\0" * 64 * MIB)
    domain.destroy()
    xml = daemon.virsh("dumpxml", "--inactive", domain.name)
    overlay = domain.images(inactive=True)["vda"]
    changed = xml.replace(str(overlay), str(other))
    path = tmp_path / "changed.xml"
    path.write_text(changed)
    daemon.virsh("define", path)
    events = await clean(config)
    (left,) = events.of(PendingLeft)
    assert "vda is now on" in left.error
    assert not left.in_use
    assert overlay.exists()
    assert domain.images()["vdb"] == images["vdb"]
    # Put right by hand, the next one ends it.
    path.write_text(xml)
    daemon.virsh("define", path)
    assert_undone(config, await clean(config))
    assert_at_home(domain, images)
    assert_kept(images)


async def test_one_that_cannot_be_undone_does_not_stop_the_other(killed, domain, tmp_path):
    """Both of one domain; virt-backup passed over every second one."""
    config, images = killed
    (pending,) = (tmp_path / "target").rglob("*.pending")
    raw = json.loads(pending.read_text())
    name = "20200101-000000_1_" + raw["name"].split("_", 2)[2]
    overlay = tmp_path / "x.raw.vbk-00000000"
    overlay.touch()
    disk = {"src": str(tmp_path / "x.raw"), "type": "raw", "snapshot": str(overlay)}
    broken = raw | {"name": name, "disks": {"vda": disk | {"target": f"{name}_vda.raw"}}}
    first = pending.with_name(f"{name}.json.pending")
    first.write_text(json.dumps(broken))
    events = await clean(config)
    assert [event.backup for event in events.of(PendingUndone)] == [raw["name"]]
    assert [event.backup for event in events.of(PendingLeft)] == [name]
    assert files(config) == [first]
    assert domain.images()["vda"] == images["vda"]


async def test_clean_beside_a_running_backup_leaves_it_alone(daemon, domain, tmp_path):
    config = configure(tmp_path, daemon.uri, [domain.name], packager="directory")
    cleaned = []

    class CleanMeanwhile(Recorder):
        def __call__(self, event):
            super().__call__(event)
            starts = isinstance(event, PhaseChanged) and event.phase is Phase.COPYING
            if starts and not cleaned:
                command = [sys.executable, "-m", "virtbackup_async", "-c", config.path]
                done = subprocess.run(
                    [*command, "clean", "--json"], check=False, capture_output=True, text=True
                )
                cleaned.append(done)

    recorder = await back_up(config, CleanMeanwhile(tmp_path / "f"))
    (done,) = cleaned
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    (left,) = [event for event in said if event["event"] == "pending_left"]
    assert left["in_use"]
    assert recorder.done
    assert len(files(config)) == 3


async def test_a_backup_waits_for_a_clean_that_waits_for_it(daemon, domain, tmp_path):
    """Two commands with ``--wait`` on one domain run one after the other."""
    config = configure(tmp_path, daemon.uri, [domain.name], packager="directory", keep_last=9)
    command = [sys.executable, "-m", "virtbackup_async", "-c", config.path]
    backup = [*command, "backup", "--wait", "forever", "--json"]
    started = [subprocess.Popen(backup, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=100)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert sum(text.count('"event":"backup_done"') for text in said) == 2
    assert not (await clean(config)).of(BackupRemoved)


async def test_retention_over_real_backups(daemon, domain, tmp_path):
    config = configure(tmp_path, daemon.uri, [domain.name], packager="zstd", keep_last=2)
    settings = yaml.safe_load(config.path.read_text())
    rules = dict.fromkeys(("hourly", "daily", "weekly", "monthly", "yearly"), 0)
    settings["groups"]["all"].update(rules)
    config = configure(tmp_path, daemon.uri, [domain.name], **{
        key: value for key, value in settings["groups"]["all"].items()
        if key not in {"hosts", "target", "autostart"}
    })  # fmt: skip
    names = [(await back_up(config, Recorder(tmp_path / "f"))).of(BackupDone)[0].backup
             for _ in range(3)]  # fmt: skip
    events = await clean(config)
    assert [event.backup for event in events.of(BackupRemoved)] == names[:1]
    assert not events.of(Warned)
    assert {path.name.split(".")[0][: len(names[1])] for path in files(config)} == set(names[1:])
