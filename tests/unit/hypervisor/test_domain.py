"""What ``Domain`` makes of libvirt's answers; the connection is real, libvirt's domain is not."""

from pathlib import Path

import libvirt
import pytest

from virtbackup_async.errors import BlockJobError, HypervisorError, SnapshotError
from virtbackup_async.hypervisor import domain as domain_module
from virtbackup_async.hypervisor.connection import Connection
from virtbackup_async.hypervisor.domain import Domain
from virtbackup_async.model.domain_xml import parse
from virtbackup_async.model.pull import PullJob
from virtbackup_async.model.tracking import Tracked, Tracking

UUID = "00000000-0000-4000-8000-000000000000"
SOCKET = Path("/run/vbk-00000001.sock")
DISK = (
    "<disk type='file'><driver type='raw'/><source file='/i/a'/>"
    "<target dev='vda' bus='virtio'/></disk>"
)
XML = f"<domain><name>web</name><devices>{DISK}</devices></domain>"


def said(code):
    error = libvirt.libvirtError("call failed")
    error.err = (code, libvirt.VIR_FROM_QEMU, "words", 2, None, None, None, 0, 0)
    return error


class Item:
    """A snapshot, a checkpoint."""

    def __init__(self, name):
        self._name = name

    def getName(self):  # noqa: N802 -- libvirt's name
        return self._name


class PoolVolume:
    """A volume of libvirt's storage pool."""

    def __init__(self, kind):
        self.kind = kind

    def info(self):
        return [self.kind, 1 << 20, 0]

    def path(self):
        return "/pool/data"


class Handle:
    """libvirt's connection and its one domain."""

    def __init__(self):
        self.active = 1
        self.now = (libvirt.VIR_DOMAIN_RUNNING, 0)
        self.job = libvirt.VIR_DOMAIN_JOB_NONE
        self.sockets = []
        self.abort_errors = []
        self.refusal = None
        self.has_save_image = 0
        self.xml = XML
        self.uri = "qemu:///system"
        self.pool = None
        self.calls = []

    def lookupByUUIDString(self, _uuid):  # noqa: N802 -- libvirt's name
        return self

    def connect(self):
        return self

    def getLibVersion(self):  # noqa: N802 -- libvirt's name
        return 9_000_000

    def isActive(self):  # noqa: N802 -- libvirt's name
        return self.active

    def isPersistent(self):  # noqa: N802 -- libvirt's name
        return 1

    def state(self):
        return self.now

    def jobInfo(self):  # noqa: N802 -- libvirt's name
        return [self.job]

    def XMLDesc(self, _flags):  # noqa: N802 -- libvirt's name
        return self.xml

    def snapshotCreateXML(self, xml, flags):  # noqa: N802 -- libvirt's name
        self.calls.append(("snapshot", xml, flags))
        if self.refusal:
            raise self.refusal

    def backupBegin(self, xml, checkpoint, flags):  # noqa: N802 -- libvirt's name
        self.calls.append(("begin", xml, checkpoint))

    def backupGetXMLDesc(self, flags):  # noqa: N802 -- libvirt's name
        assert flags == 0
        if not self.sockets:
            raise said(libvirt.VIR_ERR_NO_DOMAIN_BACKUP)
        return f"<domainbackup><server socket='{self.sockets.pop(0)}'/></domainbackup>"

    def abortJob(self):  # noqa: N802 -- libvirt's name
        self.calls.append(("abort",))
        if self.abort_errors:
            raise self.abort_errors.pop(0)

    def resume(self):
        self.calls.append(("resume",))

    def create(self):
        self.calls.append(("create",))
        if self.refusal:
            raise self.refusal

    def listAllSnapshots(self, flags):  # noqa: N802 -- libvirt's name
        assert flags == 0
        return [Item("one"), Item("two")]

    def listAllCheckpoints(self, flags):  # noqa: N802 -- libvirt's name
        assert flags == 0
        return [Item("three")]

    def getURI(self):  # noqa: N802 -- libvirt's name
        return self.uri

    def name(self):
        return "web"

    def UUIDString(self):  # noqa: N802 -- libvirt's name
        return UUID

    def ID(self):  # noqa: N802 -- libvirt's name
        return 7 if self.active else -1

    def storagePoolLookupByName(self, pool):  # noqa: N802 -- libvirt's name
        if self.pool is None:
            raise said(libvirt.VIR_ERR_NO_STORAGE_POOL)
        assert pool == "images"
        return self

    def storageVolLookupByName(self, name):  # noqa: N802 -- libvirt's name
        assert name == "data"
        return self.pool

    def updateDeviceFlags(self, xml, flags):  # noqa: N802 -- libvirt's name
        self.calls.append(("update", xml, flags))

    def hasManagedSaveImage(self, _flags):  # noqa: N802 -- libvirt's name
        if isinstance(self.has_save_image, Exception):
            raise self.has_save_image
        return self.has_save_image

    def managedSaveGetXMLDesc(self, _flags):  # noqa: N802 -- libvirt's name
        return XML

    def managedSaveDefineXML(self, xml, _flags):  # noqa: N802 -- libvirt's name
        self.calls.append(("define saved", xml))

    def managedSaveRemove(self, _flags):  # noqa: N802 -- libvirt's name
        self.calls.append(("remove saved",))

    @property
    def names(self):
        return [call[0] for call in self.calls]


@pytest.fixture
def handle():
    return Handle()


@pytest.fixture
async def domain(handle, monkeypatch):
    monkeypatch.setattr(domain_module, "END_INTERVALS_S", (0, 0))
    handle.setKeepAlive = lambda *_words: None
    handle.domainEventRegisterAny = lambda *_words: 0
    connection = Connection(None, lambda: handle)
    await connection.open()
    return Domain(connection, "web", UUID)


async def test_a_snapshot_that_libvirt_refuses_is_a_snapshot_error(domain, handle):
    handle.refusal = said(libvirt.VIR_ERR_OPERATION_FAILED)
    with pytest.raises(SnapshotError) as raised:
        await domain.snapshot("b", {"vda": Path("/i/o")}, [], quiesce=False)
    assert type(raised.value) is SnapshotError


@pytest.mark.parametrize("quiesce", [False, True])
async def test_a_snapshot_is_atomic_and_freezes_only_if_it_shall(domain, handle, quiesce):
    await domain.snapshot("b", {"vda": Path("/i/o")}, ["vdb"], quiesce=quiesce)
    ((_, _xml, flags),) = handle.calls
    assert flags & libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    assert flags & libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    assert bool(flags & libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE) is quiesce


async def test_a_job_of_somebody_else_is_found_before_anything_is_done(domain, handle):
    await domain.prepare_backup()
    handle.job = libvirt.VIR_DOMAIN_JOB_UNBOUNDED
    with pytest.raises(HypervisorError, match=r"another backup job.*domjobabort"):
        await domain.prepare_backup()


async def test_a_job_is_begun_with_a_checkpoint_of_its_tracked_disks_alone(domain, handle):
    job = PullJob(SOCKET, {dev: Path(f"/s/{dev}") for dev in ("vda", "vdb")})
    tracked = {
        dev: Tracked(None, "first", checkpoint=dev == "vda", image_id=None) for dev in job.scratch
    }
    await domain.begin_backup(job, Tracking(tracked, "c"), ["vdc"])
    ((_, _xml, checkpoint),) = handle.calls
    disks = parse(checkpoint).iterfind("disks/disk")
    assert {disk.get("name"): disk.get("checkpoint") for disk in disks} == {
        "vda": "bitmap", "vdb": "no", "vdc": "no",
    }  # fmt: skip


async def test_without_a_checkpoint_libvirt_gets_none(domain, handle):
    await domain.begin_backup(PullJob(SOCKET, {"vda": Path("/s/a")}), Tracking(), [])
    assert handle.calls[0][2] is None


async def test_a_job_is_aborted_until_it_is_gone(domain, handle):
    handle.sockets = [SOCKET, SOCKET]
    handle.abort_errors = [said(libvirt.VIR_ERR_OPERATION_INVALID)]
    await domain.end_backup(SOCKET)
    assert handle.names == ["abort", "abort"]


async def test_a_job_with_another_socket_is_left_alone(domain, handle):
    handle.sockets = ["/run/another.sock"]
    await domain.end_backup(SOCKET)
    assert handle.names == []


async def test_a_domain_that_is_shut_off_has_no_job(domain, handle):
    handle.active, handle.sockets = 0, [SOCKET]
    await domain.end_backup(SOCKET)
    assert handle.names == []


async def test_a_job_that_does_not_end_is_given_up(domain, handle, monkeypatch):
    monkeypatch.setattr(domain_module, "END_TIMEOUT_S", -1)
    handle.sockets = [SOCKET]
    with pytest.raises(HypervisorError, match="does not end it within"):
        await domain.end_backup(SOCKET)


async def test_a_job_that_cannot_be_aborted_is_an_error(domain, handle):
    handle.sockets, handle.abort_errors = [SOCKET], [said(libvirt.VIR_ERR_OPERATION_FAILED)]
    with pytest.raises(HypervisorError, match="end backup"):
        await domain.end_backup(SOCKET)


@pytest.mark.parametrize(
    ("state", "reason", "resumed"),
    [
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, True),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER, False),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED, False),
    ],
)
async def test_only_a_guest_that_an_io_error_paused_is_resumed(
    domain, handle, state, reason, resumed
):
    handle.now = (state, reason)
    await domain.resume()
    assert (handle.names == ["resume"]) is resumed


async def test_the_image_of_the_next_start_is_set_in_the_persistent_xml(domain, handle):
    await domain.set_persistent_source("vda", Path("/i/b"), "qcow2")
    ((_, xml, flags),) = handle.calls
    assert flags == libvirt.VIR_DOMAIN_AFFECT_CONFIG
    disk = parse(xml)
    assert disk.find("source").get("file") == "/i/b"
    assert disk.find("driver").get("type") == "qcow2"


async def test_a_saved_domain_names_its_images_and_gets_others(domain, handle):
    handle.active, handle.has_save_image = 0, 1
    sources = await domain.sources()
    assert (sources.live, sources.saved) == (None, {"vda": Path("/i/a")})
    await domain.set_saved_source("vda", Path("/i/b"), "qcow2")
    assert "/i/b" in handle.calls[0][1]
    await domain.remove_saved()
    assert handle.names == ["define saved", "remove saved"]


@pytest.mark.parametrize(("answer", "saved"), [(0, {}), (said(libvirt.VIR_ERR_NO_SUPPORT), {})])
async def test_a_driver_without_save_images_has_none(domain, handle, answer, saved):
    handle.active, handle.has_save_image = 0, answer
    assert (await domain.sources()).saved == saved


async def test_an_error_is_not_taken_for_no_save_image(domain, handle):
    handle.active, handle.has_save_image = 0, said(libvirt.VIR_ERR_OPERATION_FAILED)
    with pytest.raises(HypervisorError):
        await domain.sources()


async def test_a_domain_is_read_with_its_state_and_its_libvirts_directories(domain, handle):
    info = await domain.info()
    assert (info.name, info.uuid, info.domain_id) == ("web", UUID, 7)
    assert (info.is_active, info.is_persistent, info.is_saved) == (True, True, False)
    assert (info.xml, info.is_suspended, dict(info.volumes)) == (XML, False, {})
    base = Path("/var/lib/libvirt")
    assert (info.swtpm_directory, info.running_directory) == (base / "swtpm", base / "qemu")
    assert info.state_directories == {base / "qemu/nvram", base / "qemu/varstore"}


async def test_a_domain_of_another_driver_has_no_known_directories(domain, handle):
    handle.uri, handle.now = "test:///default", (libvirt.VIR_DOMAIN_PMSUSPENDED, 0)
    info = await domain.info()
    assert (info.swtpm_directory, info.running_directory) == (None, None)
    assert info.state_directories == frozenset()
    assert info.is_suspended


VOLUME_XML = XML.replace(
    "</devices>",
    "<disk type='volume'><source pool='images' volume='data'/><target dev='vdb'/></disk></devices>",
)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (libvirt.VIR_STORAGE_VOL_FILE, "file"),
        (libvirt.VIR_STORAGE_VOL_BLOCK, "block"),
        (libvirt.VIR_STORAGE_VOL_NETWORK, "network"),
    ],
)
async def test_a_volume_is_found_in_its_pool(domain, handle, kind, name):
    handle.xml, handle.pool = VOLUME_XML, PoolVolume(kind)
    (volume,) = (await domain.info()).volumes.values()
    assert (volume.path, volume.kind) == (Path("/pool/data"), name)


async def test_a_volume_of_a_pool_that_is_not_active_has_a_reason_and_no_path(domain, handle):
    handle.xml = VOLUME_XML
    volumes = (await domain.info()).volumes
    assert volumes["vdb"].path is None
    assert volumes["vdb"].reason.startswith("pool images does not say where it is")


async def test_a_running_domain_has_both_sides_of_its_sources(domain, handle):
    sources = await domain.sources()
    assert sources.live == sources.persistent == {"vda": Path("/i/a")}
    assert (sources.devs_with_block_job, sources.saved) == (frozenset(), {})


async def test_a_domain_is_started_or_says_why_not(domain, handle):
    await domain.start()
    assert handle.names == ["create"]
    handle.refusal = said(libvirt.VIR_ERR_OPERATION_INVALID)
    with pytest.raises(HypervisorError, match="web: start: words"):
        await domain.start()


async def test_snapshots_and_checkpoints_are_listed_by_name(domain):
    assert await domain.snapshot_names() == ("one", "two")
    assert await domain.checkpoint_names() == ("three",)


async def test_the_waits_for_a_jobs_end_get_longer_up_to_a_limit(domain, handle, monkeypatch):
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr(domain_module, "END_INTERVALS_S", (1, 3))
    monkeypatch.setattr(domain_module.anyio, "sleep", sleep)
    handle.sockets = [SOCKET] * 4
    await domain.end_backup(SOCKET)
    assert waited == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("method", "function"),
    [("prepare_quiesce", "prepare"), ("freeze", "freeze"), ("is_frozen", "is_frozen"),
     ("thaw", "thaw")],
)  # fmt: skip
async def test_the_agent_is_asked_for_this_domain(domain, handle, monkeypatch, method, function):
    asked = []

    async def answer(connection, of):
        asked.append((connection, of))
        return "the answer"

    monkeypatch.setattr(domain_module.agent, function, answer)
    answered = await getattr(domain, method)()
    assert asked == [(domain._connection, handle)]
    assert answered == (None if function in {"prepare", "freeze"} else "the answer")


async def test_a_disk_that_cannot_be_committed_is_named(domain, handle, monkeypatch):
    async def fail(_connection, of, dev, before_pivot, *, resume):
        assert (of, dev, before_pivot, resume) == (handle, "vda", None, True)
        raise BlockJobError("it failed", domain="web")

    monkeypatch.setattr(domain_module, "commit_and_pivot", fail)
    with pytest.raises(BlockJobError) as raised:
        await domain.commit("vda", None, resume=True)
    assert raised.value.disk == "vda"


async def test_checkpoints_are_redefined_and_deleted_for_this_domain(domain, handle, monkeypatch):
    calls = []
    for name in ("redefine", "delete"):
        monkeypatch.setattr(
            domain_module, name, lambda *args, name=name: calls.append((name, *args))
        )
    await domain.redefine_checkpoint("c", 12, ["vda"])
    await domain.delete_checkpoint("c", ["vda", "vdb"])
    assert calls == [
        ("redefine", handle, "c", 12, ["vda"]), ("delete", handle, "c", ["vda", "vdb"]),
    ]  # fmt: skip
