"""Whole backups of a running domain by a pull job: libvirt is a fake, the exports are QEMU's.

The guest writes while it is backed up, and the backup holds what was on the disks when the job
began. Whatever goes wrong, no job, socket or scratch image is left, and the next backup is good.
"""

import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from fakes.hypervisor import FakeHypervisor
from fakes.pulled_domain import PulledDomain
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.backup.domain import back_up_domain
from virtbackup_async.engine.plan import plan_backups
from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import (
    ConnectionLostError,
    HypervisorError,
    NbdConnectionError,
    RollbackError,
)
from virtbackup_async.events import DiskDone, DiskProgress, Phase, PhaseChanged, Warned
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.storage_location import StorageLocation

MIB = 1 << 20
BUFFERS_MIB = 8


def run(*words):
    subprocess.run([*map(str, words)], check=True, capture_output=True)


def write(image, pattern, start, length="64k"):
    run("qemu-io", "-c", f"write -P {pattern} {start} {length}", image)


def raw(image, to):
    """Return what a guest sees of an image."""
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, to)
    return to.read_bytes()


def failing(error):
    def act():
        raise error

    return act


def copying(event):
    return isinstance(event, PhaseChanged) and event.phase is Phase.COPYING and not event.disk


def reading(event):
    """Progress of the first disk: its stream is open, and none of its data is stored."""
    return isinstance(event, DiskProgress)


class Site:
    """A running domain with two qcow2 images; the first has more data than all buffers."""

    def __init__(self, path):
        self.path = path
        self.target = path / "target"
        self.scratch = path / "s"
        for directory in (self.target, self.scratch):
            directory.mkdir()
        self.images = {dev: path / f"{dev}.qcow2" for dev in ("vda", "vdb")}
        for image, size in zip(self.images.values(), ("24M", "5M"), strict=True):
            run("qemu-img", "create", "-q", "-f", "qcow2", image, size)
        write(self.images["vda"], 1, "6M", f"{BUFFERS_MIB + 6}M")
        write(self.images["vdb"], 2, "4M", "512")
        self.domain = PulledDomain(self.images)
        self.domain.uuid = str(uuid4())
        self.events = []
        self.on = {}

    def emit(self, event):
        self.events.append(event)
        for kind in [kind for kind in self.on if kind(event)]:
            self.on.pop(kind)()

    def runtime(self, packager="directory"):
        settings = {
            "target": str(self.target), "packager": packager, "hosts": ["fake"],
            "method": "pull", "scratch": str(self.scratch), "audit_percent": 0, "quiesce": True,
        }  # fmt: skip
        path = self.path / "config.yml"
        whole = {"buffers_mib": BUFFERS_MIB, "parallel_disks": 1, "groups": {"g": settings}}
        path.write_text(yaml.safe_dump(whole))
        return Runtime(load_config(path), self.emit, FakeHypervisor(self.domain))

    async def back_up(self, packager="directory"):
        runtime = self.runtime(packager)
        (planned,) = plan_backups(runtime.config, ["g"], ["fake"]).backups
        return await back_up_domain(runtime, planned)

    def content(self):
        """What the guest has on each disk now."""
        return {dev: raw(image, self.path / "now.raw") for dev, image in self.images.items()}

    async def restored(self, done):
        """What a backup has of each disk."""
        found = {each.definition.name: each for each in (await self.scan()).complete}[done.backup]
        place = self.path / f"restored-{done.backup}"
        request = RestoreRequest(found.definition, found.path.parent, place)
        await restore_backup(self.runtime(), request)
        paths = sorted(place.glob("*.raw")) or sorted(place.glob("vd?.*"))
        return dict(zip(self.images, (path.read_bytes() for path in paths), strict=True))

    async def scan(self):
        return await Catalog(StorageLocation.of(self.target)).scan_guest(Guest("fake"))

    def guest_writes(self):
        for dev, image in self.images.items():
            write(image, 9, "4M")
            assert self.content()[dev] != self.before[dev]

    async def is_clean(self):
        """Whether no unfinished backup has left anything."""
        assert [*self.scratch.iterdir()] == []
        assert self.domain.job is None
        assert self.domain.own == self.images
        return not (await self.scan()).pending


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    site.domain.kill_server()


@pytest.mark.parametrize("packager", ["directory", "repository"])
async def test_a_running_domain_is_backed_up_as_it_was_when_its_job_began(site, packager):
    site.before = site.content()
    site.on[copying] = site.guest_writes
    done = await site.back_up(packager)
    assert await site.restored(done) == site.before
    (found,) = (await site.scan()).complete
    assert (found.definition.method, found.definition.state) == ("pull", "running")
    assert found.definition.quiesced is True
    assert await site.is_clean()


async def test_the_next_backup_reads_the_changes_alone_and_holds_every_byte(site):
    first = await site.back_up("repository")
    write(site.images["vda"], 5, "10M", "1M")
    write(site.images["vda"], 0, "20M", "1M")
    site.before = site.content()
    site.on[copying] = site.guest_writes
    second = await site.back_up("repository")
    disks = {event.disk: event for event in site.events if isinstance(event, DiskDone)}
    assert [disk.base for disk in disks.values()] == [first.backup] * 2
    assert 2 * MIB <= disks["vda"].read_bytes < 4 * MIB
    assert disks["vdb"].read_bytes <= 64 << 10, "the audit reads one chunk, and it has so much data"
    assert await site.restored(second) == site.before
    third = await site.back_up("repository")
    assert await site.restored(third) == site.content()
    assert len(site.domain.checkpoints) == 1
    assert await site.is_clean()


@pytest.mark.parametrize("moment", [copying, reading])
async def test_an_export_that_ends_fails_the_backup_and_the_next_one_is_good(site, moment):
    site.on[moment] = site.domain.kill_server
    with pytest.raises(NbdConnectionError) as raised:
        await site.back_up()
    assert raised.value.disk == "vda"
    assert await site.is_clean()
    assert not (await site.scan()).complete
    assert [path for path in site.target.rglob("*") if path.is_file()] == []
    assert await site.restored(await site.back_up()) == site.content()


async def test_an_export_that_ends_after_the_first_disk_fails_all_of_the_backup(site):
    site.on[lambda event: isinstance(event, DiskDone)] = site.domain.kill_server
    with pytest.raises(NbdConnectionError) as raised:
        await site.back_up()
    assert raised.value.disk == "vdb"
    assert await site.is_clean()
    assert not (await site.scan()).complete


async def test_a_job_without_a_socket_fails_the_backup_and_is_ended(site):
    site.domain.makes_socket = False
    with pytest.raises(NbdConnectionError, match=str(site.scratch)):
        await site.back_up()
    assert "end_backup" in site.domain.calls
    assert await site.is_clean()


@pytest.mark.parametrize(("packager", "moment"), [("directory", reading), ("repository", copying)])
async def test_a_domain_that_stops_takes_its_job_along_and_is_read_offline(site, packager, moment):
    site.on[moment] = site.domain.shut_off
    done = await site.back_up(packager)
    (warned,) = [event.message for event in site.events if isinstance(event, Warned)]
    assert warned == "fake: it was shut off during its backup: starting over"
    (found,) = (await site.scan()).complete
    assert found.definition.state == "shutoff"
    assert await site.restored(done) == site.content()
    assert await site.is_clean()


async def test_a_job_that_cannot_be_ended_is_ended_by_the_next_backup(site):
    site.domain.before["end_backup"] = [failing(HypervisorError("QEMU is stuck"))]
    with pytest.raises(RollbackError, match="the backup job is still there: QEMU is stuck"):
        await site.back_up()
    left = site.domain.job
    assert left.socket.exists()
    assert len((await site.scan()).pending) == 1
    done = await site.back_up()
    assert not left.socket.exists()
    assert await site.restored(done) == site.content()
    assert await site.is_clean()


async def test_a_connection_that_is_lost_as_the_job_ends_is_opened_again(site):
    site.domain.before["end_backup"] = [failing(ConnectionLostError("libvirt restarts"))]
    done = await site.back_up()
    assert site.domain.calls.count("end_backup") == 2
    assert await site.restored(done) == site.content()
    assert await site.is_clean()


async def test_a_refused_job_says_why_and_leaves_nothing(site):
    site.domain.before["begin_backup"] = [failing(HypervisorError("it is not supported"))]
    with pytest.raises(HypervisorError, match="it is not supported"):
        await site.back_up()
    assert await site.is_clean()


async def test_no_socket_is_planned_where_no_directory_takes_one(site):
    site.scratch = Path(f"/{'long' * 30}")
    with pytest.raises(HypervisorError, match="no directory in which QEMU could make a socket"):
        await site.back_up()
    assert "begin_backup" not in site.domain.calls
