"""The hypervisor's port: the fake of the unit tests behaves as a real libvirt with a real QEMU.

Each test runs against both. What can only be looked up is asked of libvirt's test driver as well.
"""

import uuid
from pathlib import Path

import pytest
from anyio import to_thread

from fakes.hypervisor import DescribedDomain, FakeHypervisor
from lab.disks import MIB, DiskSpec
from lab.domains import LabDomain
from virtbackup_async.engine.ports import DomainPort, HypervisorPort
from virtbackup_async.errors import DomainGoneError, DomainNotFoundError, HypervisorError
from virtbackup_async.hypervisor.hypervisor import open_hypervisor
from virtbackup_async.model.pull import PullJob, socket_name
from virtbackup_async.model.tracking import Tracked, Tracking, checkpoint_name

OVERLAY = ".vbk-0a0b0c0d"
CHECKPOINT = checkpoint_name(bytes(16))


class World:
    """A hypervisor with one persistent domain of one disk, ``vda``, that is shut off."""

    hypervisor: HypervisorPort
    name: str
    image: Path

    async def domain(self) -> DomainPort:
        return await self.hypervisor.domain(self.name)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def undefine(self) -> None: ...

    def socket(self) -> Path:
        """Where a pull job of the running domain may listen."""
        return self.image.parent / socket_name("0a0b0c0d")


class FakeWorld(World):
    def __init__(self, image: Path) -> None:
        self.image = image
        self._domain = DescribedDomain({"vda": image}, active=False)
        self.name = self._domain.name
        self.hypervisor = FakeHypervisor(self._domain)

    async def start(self) -> None:
        self._domain.live = dict(self._domain.persistent or {})

    async def stop(self) -> None:
        self._domain.shut_off()

    async def undefine(self) -> None:
        self._domain.undefine()


class QemuWorld(World):
    def __init__(self, hypervisor: HypervisorPort, domain: LabDomain) -> None:
        self.hypervisor = hypervisor
        self.name = domain.name
        self.image = domain.image("vda", inactive=True)
        self._domain = domain
        self._virsh = domain.root.virsh
        self._undefined = self.image.with_name("undefined.xml")

    async def start(self) -> None:
        await to_thread.run_sync(self._domain.start_paused)

    async def stop(self) -> None:
        await to_thread.run_sync(self._domain.destroy)

    async def undefine(self) -> None:
        self._undefined.write_text(self._virsh("dumpxml", self.name))
        await to_thread.run_sync(self._virsh, "undefine", self.name)

    def define_again(self) -> None:
        """Let the lab find its domain, to remove it."""
        if self._undefined.exists():
            self._virsh("define", self._undefined)


@pytest.fixture(params=["fake", "QEMU"])
async def world(request, tmp_path):
    if request.param == "fake":
        image = tmp_path / "vda.raw"
        image.write_bytes(bytes(MIB))
        yield FakeWorld(image)
        return
    daemon = request.getfixturevalue("daemon")
    make_domain = request.getfixturevalue("make_domain")
    disk = DiskSpec("vda", size_bytes=MIB, fs=None)
    domain = await to_thread.run_sync(lambda: make_domain(disk, boot=False))
    async with open_hypervisor(daemon.uri) as hypervisor:
        world = QemuWorld(hypervisor, domain)
        try:
            yield world
        finally:
            await to_thread.run_sync(world.define_again)


def overlay_of(world: World) -> Path:
    return world.image.with_name(world.image.name + OVERLAY)


async def snapshot(world: World) -> None:
    domain = await world.domain()
    await domain.snapshot("virtbackup", {"vda": overlay_of(world)}, (), quiesce=False)


async def nothing() -> None:
    """What is done before a pivot."""


def job_of(world: World) -> PullJob:
    scratch = world.image.with_name(f"{world.image.name}.vbk-0a0b0c0d.scratch")
    return PullJob(world.socket(), {"vda": scratch})


async def test_what_is_not_there_is_not_found(world):
    with pytest.raises(DomainNotFoundError):
        await world.hypervisor.domain("nobody")
    with pytest.raises(DomainNotFoundError):
        await world.hypervisor.domain_by_uuid(str(uuid.uuid4()))


async def test_a_domain_is_found_by_its_name_and_by_its_uuid(world):
    assert world.name in await world.hypervisor.domain_names()
    domain = await world.domain()
    again = await world.hypervisor.domain_by_uuid(domain.uuid)
    assert (again.name, again.uuid) == (world.name, domain.uuid)
    info = await domain.info()
    assert (info.name, info.uuid, info.is_persistent) == (world.name, domain.uuid, True)


async def test_a_domain_that_is_shut_off_has_one_side(world):
    domain = await world.domain()
    info, sources = await domain.info(), await domain.sources()
    assert (info.is_active, info.domain_id, info.is_saved) == (False, -1, False)
    assert sources.live is None
    assert sources.persistent == {"vda": world.image}
    assert str(world.image) in info.xml


async def test_a_domain_that_runs_has_two_sides(world):
    await world.start()
    domain = await world.domain()
    info, sources = await domain.info(), await domain.sources()
    assert info.is_active
    assert info.domain_id > 0
    assert sources.live == sources.persistent == {"vda": world.image}
    assert (sources.devs_with_block_job, sources.saved) == (frozenset(), {})


async def test_a_domain_that_is_undefined_while_it_runs_has_no_definition(world):
    domain = await world.domain()
    await world.start()
    await world.undefine()
    info, sources = await domain.info(), await domain.sources()
    assert (info.is_active, info.is_persistent) == (True, False)
    assert (sources.live, sources.persistent) == ({"vda": world.image}, None)
    await world.stop()
    with pytest.raises(DomainNotFoundError):
        await domain.sources()


async def test_an_undefined_domain_is_found_no_more(world):
    domain = await world.domain()
    await world.undefine()
    for call in (domain.info, domain.sources, domain.snapshot_names, domain.checkpoint_names):
        with pytest.raises(DomainNotFoundError):
            await call()


async def test_a_snapshot_puts_both_sides_on_the_overlay_and_a_commit_puts_them_back(world):
    await world.start()
    domain = await world.domain()
    await snapshot(world)
    sources = await domain.sources()
    assert sources.live == sources.persistent == {"vda": overlay_of(world)}
    assert await domain.snapshot_names() == ()

    seen = []

    async def look() -> None:
        seen.append((await domain.sources()).live)

    await domain.commit("vda", look)
    assert seen == [{"vda": overlay_of(world)}]
    sources = await domain.sources()
    assert sources.live == sources.persistent == {"vda": world.image}


async def test_what_needs_a_domain_that_runs_says_that_it_is_gone(world):
    domain = await world.domain()
    with pytest.raises(DomainGoneError):
        await domain.commit("vda", nothing)
    with pytest.raises(DomainGoneError):
        await domain.begin_backup(job_of(world), Tracking(), ())
    assert (await domain.sources()).persistent == {"vda": world.image}


async def test_a_snapshot_of_a_domain_that_is_shut_off_changes_its_definition(world):
    """libvirt does not refuse it: an undo has to know that side as well."""
    await snapshot(world)
    domain = await world.domain()
    sources = await domain.sources()
    assert (sources.live, sources.persistent) == (None, {"vda": overlay_of(world)})


async def test_a_domain_that_stops_on_its_overlay_is_defined_on_it(world):
    await world.start()
    await snapshot(world)
    await world.stop()
    domain = await world.domain()
    with pytest.raises(DomainGoneError):
        await domain.commit("vda", nothing)
    assert (await domain.sources()).persistent == {"vda": overlay_of(world)}
    await domain.set_persistent_source("vda", world.image, "raw")
    sources = await domain.sources()
    assert (sources.live, sources.persistent) == (None, {"vda": world.image})


async def test_a_backup_job_runs_until_it_is_ended_and_is_ended_by_its_socket_alone(world):
    await world.start()
    domain = await world.domain()
    job = job_of(world)
    await domain.prepare_backup()
    await domain.begin_backup(job, Tracking(), ())
    await domain.end_backup(job.socket.with_name(socket_name("ffffffff")))
    with pytest.raises(HypervisorError):
        await domain.prepare_backup()
    await domain.end_backup(job.socket)
    await domain.prepare_backup()
    await domain.end_backup(job.socket)
    assert (await domain.sources()).live == {"vda": world.image}


async def test_a_checkpoint_is_there_from_its_job_until_it_is_deleted(world):
    await world.start()
    domain = await world.domain()
    tracking = Tracking(
        {"vda": Tracked(None, "the first", checkpoint=True, image_id=None)}, CHECKPOINT
    )
    assert await domain.checkpoint_names() == ()
    job = job_of(world)
    await domain.begin_backup(job, tracking, ())
    assert await domain.checkpoint_names() == (CHECKPOINT,)
    await domain.end_backup(job.socket)
    assert set(await domain.changed_bytes(CHECKPOINT) or ()) == {"vda"}
    assert await domain.changed_bytes(checkpoint_name(bytes(16))) is None
    assert await domain.redefine_checkpoint(CHECKPOINT, 0, ["vda"]) == {"vda"}
    assert await domain.delete_checkpoint(CHECKPOINT, ["vda"])
    assert await domain.checkpoint_names() == ()
    assert await domain.delete_checkpoint(CHECKPOINT, ["vda"])


async def test_a_guest_that_runs_needs_no_resume(world):
    await world.start()
    domain = await world.domain()
    assert not await domain.is_paused_on_io_error()
    await domain.resume()
    assert (await domain.info()).is_active


async def test_a_connection_that_was_opened_again_finds_the_domain(world):
    domain = await world.domain()
    await world.hypervisor.reconnect()
    assert (await domain.info()).uuid == domain.uuid


async def test_the_test_driver_answers_what_is_only_looked_up():
    async with open_hypervisor("test:///default") as hypervisor:
        assert await hypervisor.domain_names() == ("test",)
        domain = await hypervisor.domain("test")
        assert (await hypervisor.domain_by_uuid(domain.uuid)).name == "test"
        assert (await domain.info()).is_active
        assert (await hypervisor.versions()).driver == "TEST"
        with pytest.raises(DomainNotFoundError):
            await hypervisor.domain("nobody")
