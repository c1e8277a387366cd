"""What an admin sees of every kind of error: the rows of docs/reference/errors.md.

Each sample is an error that the program's own code made. Those of commands come from the installed
command, in a process of its own; the hypervisor's and NBD's come from the functions that translate
what libvirt, QEMU or a server says. Paths, process ids and times are replaced by names.
"""

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import libvirt
import msgspec
import pytest
import yaml
from rich.console import Console

from fakes import nbd_wire
from fakes.hypervisor import FakeDomain
from fakes.nbd_peer import CLIENT_HELLO, READY, REQUEST, peer, receive
from fakes.nbd_servers import qemu_nbd
from fakes.stored_backup import DATE, StoredBackup
from virtbackup_async import errors
from virtbackup_async.cli.failure import say
from virtbackup_async.cli.render.run import print_run
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.backup.session import failed_event
from virtbackup_async.engine.domain_states import check_still_active
from virtbackup_async.engine.outcome import known_error
from virtbackup_async.engine.plan import PlannedBackup
from virtbackup_async.engine.restore.files import RestoredFiles
from virtbackup_async.events import BackupFailed, Summary
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.host import domain_locks
from virtbackup_async.hypervisor.block_commit import commit_and_pivot
from virtbackup_async.hypervisor.block_jobs import BlockJobEvents
from virtbackup_async.hypervisor.connection import Connection
from virtbackup_async.hypervisor.domain import Domain
from virtbackup_async.hypervisor.errors import Attempt, translate
from virtbackup_async.model.backup import Packager
from virtbackup_async.nbd import Address, UnixAddress, open_nbd
from virtbackup_async.reporting.outcome import RunOutcome
from virtbackup_async.reporting.reports.run import RunReport
from virtbackup_async.repository.format import sealed_json

_NODE = """<node><domain type='test'><name>web</name><uuid>{uuid}</uuid><memory>1024</memory>
<os><type>hvm</type></os><devices><disk type='file'><driver name='qemu' type='qcow2'/>
<source file='{image}'/><target dev='vda' bus='virtio'/></disk></devices></domain></node>"""
HOUR_S = 3600
UUID = "00000000-0000-4000-8000-000000000000"
EARLIER, LATER = DATE, DATE + 24 * HOUR_S


class Sample(msgspec.Struct, frozen=True):
    """How one error ends: what is printed of it, with the advice in it, and what programs get."""

    exit_code: int
    error_code: str
    seen: str
    advice: str


class Place:
    """A directory with a target, and the command line in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.target = root / "backups"
        self.target.mkdir(mode=0o700)
        self.uuid = str(uuid4())
        self.configure()

    def configure(self, uri: str | None = None, **group: object) -> None:
        settings = {"target": str(self.target), "packager": "directory", "autostart": True}
        groups = {"main": settings | {"hosts": ["web"]} | group}
        self.config.write_text(yaml.safe_dump({"uri": uri or self.libvirt, "groups": groups}))

    @property
    def libvirt(self) -> str:
        """libvirt's driver for tests, with one running domain whose image is missing.

        Its UUID is its own, because locks are the host's.
        """
        node = self.root / "node.xml"
        node.write_text(_NODE.format(uuid=self.uuid, image=self.root / "web.qcow2"))
        return f"test://{node}"

    @property
    def config(self) -> Path:
        return self.root / "config.yml"

    async def store(self, date: int = DATE, packager: str = "directory") -> StoredBackup:
        """Put a complete backup of the domain ``web`` into the target."""
        stored = StoredBackup(self.target, Packager(packager), "web", date)
        return await stored.make(self.root / "image.raw")

    def end(self, *words: str) -> Sample:
        """Run a command; return how it ends."""
        summary, *_, said = self._run(*words)
        assert isinstance(summary, Summary)
        return self._sample(summary.exit_code, summary.error_code, said, summary.advice)

    def row(self, *words: str) -> Sample:
        """Run a backup that fails; return the row of its domain."""
        _, failed, _ = self._run(*words)
        assert isinstance(failed, BackupFailed)
        return self.failed(failed)

    def failed(self, failed: BackupFailed) -> Sample:
        shown = io.StringIO()
        nothing = Summary(ok=False, done=(), failed=(), exit_code=3)
        print_run(RunReport(failed=[failed]), Console(file=shown, width=200), nothing)
        line = shown.getvalue().splitlines()[0]
        return self._sample(failed.exit_code, failed.error_code, line, failed.advice)

    def of(self, error: errors.VirtBackupError) -> Sample:
        """Return how a command ends that this error ends."""
        summary = RunOutcome(lambda _event: None).summary([error], None)
        shown = io.StringIO()
        with contextlib.redirect_stderr(shown):
            say(summary.error or "")
        return self._sample(
            summary.exit_code, summary.error_code, shown.getvalue().strip(), summary.advice
        )

    def row_of(self, error: errors.VirtBackupError) -> Sample:
        """Return the row of the domain ``web``, whose backup this error ends."""
        group = load_config(self.config).groups["main"]
        return self.failed(failed_event(PlannedBackup(group, "web", (), quiesce=True), error))

    def _run(self, *words: str) -> tuple[object, object, str]:
        argv = [sys.executable, "-m", "virtbackup_async", "-c", str(self.config), *words, "--json"]
        ended = subprocess.run(
            argv, cwd=self.root, capture_output=True, text=True, timeout=60, check=False
        )
        events = [json.loads(line) for line in ended.stdout.splitlines()]
        of_kind = {event["event"]: event for event in events}
        failed = of_kind.get("backup_failed")
        summary = msgspec.convert(_fields(of_kind["summary"]), Summary)
        assert summary.exit_code == ended.returncode
        said = (ended.stderr.splitlines() or [""])[-1]
        return summary, failed and msgspec.convert(_fields(failed), BackupFailed), said

    def _sample(self, code: int, name: str | None, seen: str, advice: str | None) -> Sample:
        return Sample(code, name or "", self._named(seen), self._named(advice or ""))

    def _named(self, text: str) -> str:
        text = text.replace(str(self.root), "/srv")
        text = re.sub(r"process \d+ ", "process 4711 ", text)
        return re.sub(r"since [-0-9]{10} [0-9:]{5}", "since 2026-03-01 02:15", text)


def _fields(event: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in event.items() if key not in {"event", "time"}}


Sampler = Callable[[Place], Awaitable[Sample]]
SAMPLERS: dict[type[errors.VirtBackupError], Sampler] = {}


def sample_of(kind: type[errors.VirtBackupError]) -> Callable[[Sampler], Sampler]:
    def note(sampler: Sampler) -> Sampler:
        SAMPLERS[kind] = sampler
        return sampler

    return note


class Said(libvirt.libvirtError):  # type: ignore[misc]
    """libvirt's error, as its binding raises it."""

    def __init__(self, code: int, text: str, domain: int = libvirt.VIR_FROM_QEMU) -> None:
        super().__init__("call failed")
        self.err = (code, domain, text, 2, None, None, None, 0, 0)


async def raised(
    kind: type[errors.VirtBackupError], work: Awaitable[object]
) -> errors.VirtBackupError:
    """Return the error that ends some work."""
    with pytest.raises(kind) as raising:
        await work
    return raising.value


@sample_of(errors.VirtBackupError)
async def _a_bug(place: Place) -> Sample:
    return place.row_of(known_error("web", KeyError("source")))


@sample_of(errors.ConfigError)
async def _a_wrong_value(place: Place) -> Sample:
    place.configure(packager="zip")
    return place.end("list")


@sample_of(errors.BackupsFailedError)
async def _some_backups(place: Place) -> Sample:
    place.configure(hosts=["gone"])
    return place.end("backup")


@sample_of(errors.UnusualChangeError)
async def _an_encrypted_guest(place: Place) -> Sample:
    for night in range(4):
        stored = await place.store(EARLIER + night * 24 * HOUR_S, packager="zstd")
        raw = json.loads(stored.path.read_text())
        for image in raw["images"].values():
            size_bytes = 20 << 30
            image["data_bytes"] = size_bytes
            image["stored_bytes"] = size_bytes if night == 3 else size_bytes // 2
        raw.pop("checksum")
        stored.rewrite(json.dumps(raw))
    return place.end("clean")


@sample_of(errors.HypervisorError)
async def _a_running_domain(place: Place) -> Sample:
    stored = await place.store()
    raw = json.loads(stored.path.read_text())
    stored.rewrite(json.dumps(raw | {"domain_uuid": place.uuid}))
    return place.end("restore", "web", "--in-place")


@sample_of(errors.ConnectionFailedError)
async def _no_daemon(place: Place) -> Sample:
    place.configure(uri=f"qemu+unix:///system?socket={place.root}/libvirt-sock")
    return place.end("backup")


@sample_of(errors.ConnectionLostError)
async def _a_daemon_that_went_away(place: Place) -> Sample:
    said = Said(
        libvirt.VIR_ERR_INTERNAL_ERROR, "client socket is closed", domain=libvirt.VIR_FROM_RPC
    )
    return place.row_of(translate(said, Attempt("web", "snapshot")))


@sample_of(errors.DomainNotFoundError)
async def _an_unknown_domain(place: Place) -> Sample:
    place.configure(hosts=["database"])
    return place.row("backup")


@sample_of(errors.DomainGoneError)
async def _a_domain_that_was_undefined(place: Place) -> Sample:
    domain = FakeDomain({}, active=False)
    domain.name = "web"
    domain.undefine()
    work = check_still_active(domain, errors.HypervisorError("x"))
    return place.row_of(await raised(errors.DomainGoneError, work))


@sample_of(errors.DiskNotFoundError)
async def _no_disk(place: Place) -> Sample:
    place.configure(hosts=[{"host": "web", "disks": ["vdz"]}])
    return place.row("backup")


@sample_of(errors.CallRefusedError)
async def _a_refused_call(place: Place) -> Sample:
    said = Said(libvirt.VIR_ERR_ACCESS_DENIED, "access denied")
    return place.row_of(translate(said, Attempt("web", "snapshot")))


class _RefusingHandle:
    """libvirt's connection and its domain, which takes no snapshot."""

    setKeepAlive = domainEventRegisterAny = lambda self, *_words: 0  # noqa: N815 -- libvirt's
    lookupByUUIDString = lambda self, _uuid: self  # noqa: N815, E731 -- libvirt's
    isActive = lambda self: 1  # noqa: N815, E731 -- libvirt's

    def snapshotCreateXML(self, _xml: str, _flags: int) -> None:  # noqa: N802 -- libvirt's
        text = "internal error: unable to execute QEMU command 'transaction': Permission denied"
        raise Said(libvirt.VIR_ERR_INTERNAL_ERROR, text)


@sample_of(errors.SnapshotError)
async def _a_refused_snapshot(place: Place) -> Sample:
    connection = Connection(None, _RefusingHandle)
    await connection.open()
    domain = Domain(connection, "web", UUID)
    work = domain.snapshot("b", {"vda": Path("/srv/web.vbk")}, [], quiesce=False)
    return place.row_of(await raised(errors.SnapshotError, work))


@sample_of(errors.QuiesceError)
async def _a_silent_agent(place: Place) -> Sample:
    text = "guest agent is not responding: QEMU guest agent is not connected"
    said = Said(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, text)
    return place.row_of(translate(said, Attempt("web", "ask the guest agent")))


class _FailingJob:
    """A connection, and a domain whose block job fails."""

    block_jobs = BlockJobEvents()
    name = lambda self: "web"  # noqa: E731 -- libvirt's
    UUIDString = lambda self: UUID  # noqa: E731 -- libvirt's

    def blockCommit(self, *_words: object) -> None:  # noqa: N802 -- libvirt's
        raise AssertionError("the connection does not call it")

    blockJobInfo = blockCommit  # noqa: N815 -- libvirt's

    async def call_running(self, *_words: object) -> dict[str, int]:
        failed = libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED
        self.block_jobs.on_block_job(None, self, "vda", 4, failed, None)
        return {"cur": 0, "end": 9}


@sample_of(errors.BlockJobError)
async def _a_failed_job(place: Place) -> Sample:
    job: Any = _FailingJob()
    work = commit_and_pivot(job, job, "vda", anyio.lowlevel.checkpoint)
    return place.row_of(await raised(errors.BlockJobError, work))


@sample_of(errors.LockHeldError)
async def _a_held_lock(place: Place) -> Sample:
    words = (place.root / "locks", "web", UUID, "backup of group main")
    held = domain_locks.acquire(*words)
    try:
        work = anyio.to_thread.run_sync(domain_locks.acquire, *words)
        return place.row_of(await raised(errors.LockHeldError, work))
    finally:
        held.release()


@sample_of(errors.NotFoundError)
async def _an_unknown_group(place: Place) -> Sample:
    return place.end("list", "mian")


@sample_of(errors.CorruptError)
async def _a_file_cut_off(place: Place) -> Sample:
    await _verified_and(place)
    stored = await place.store(LATER, "zstd")
    stored.cut()
    return place.end("restore", "web", f"{place.root}/new")


async def _verified_and(place: Place) -> None:
    """Put a backup into the target that `verify` finds good."""
    await place.store(EARLIER)
    assert place.end("verify").exit_code == 0


@sample_of(errors.DefinitionError)
async def _a_damaged_definition(place: Place) -> Sample:
    await _verified_and(place)
    stored = await place.store(LATER)
    stored.path.write_text("{")
    return place.end("restore", "web", f"{place.root}/new")


@sample_of(errors.DigestMismatchError)
async def _a_flipped_bit(place: Place) -> Sample:
    await _verified_and(place)
    stored = await place.store(LATER)
    stored.flip(0.99)
    return place.end("restore", "web", f"{place.root}/new")


@sample_of(errors.NewerVersionError)
async def _a_newer_repository(place: Place) -> Sample:
    await place.store(packager="repository")
    path = place.target / ".virtbackup-repository" / "repository"
    it = json.loads(path.read_bytes().split(b"\n")[0])
    path.write_bytes(sealed_json.dumps(it | {"version": 99}))
    return place.end("restore", "web", f"{place.root}/new")


@sample_of(errors.ForeignRepositoryError)
async def _a_foreign_map(place: Place) -> Sample:
    stored = await place.store(packager="repository")
    elsewhere = place.root / "elsewhere"
    elsewhere.mkdir()
    foreign = await Place(elsewhere).store(packager="repository")
    stored.package.write_bytes(foreign.package.read_bytes())
    return place.end("repair")


@sample_of(errors.RollbackError)
async def _a_file_that_stays(place: Place) -> Sample:
    return place.of(await raised(errors.RollbackError, _left_behind(place.root)))


async def _left_behind(root: Path) -> None:
    files = RestoredFiles(root)
    (root / "web.qcow2.vbk-1.part").mkdir()
    files._parts[root / "web.qcow2.vbk-1.part"] = root / "web.qcow2"
    await files.remove()


@sample_of(errors.NbdConnectionError)
async def _no_socket(place: Place) -> Sample:
    work = _open(UnixAddress(place.root / "nbd.sock"))
    return place.row_of(await raised(errors.NbdConnectionError, work))


async def _open(address: Address, name: str = "", read: int = 0) -> None:
    async with open_nbd(address, name=name) as client:
        await client.read_into(0, memoryview(bytearray(read)))


@sample_of(errors.NbdRefusedError)
async def _no_such_export(place: Place) -> Sample:
    image = place.root / "image.raw"
    image.write_bytes(bytes(1 << 20))
    with qemu_nbd(place.root, image) as address:
        return place.row_of(await raised(errors.NbdRefusedError, _open(address, "vdb")))


@sample_of(errors.NbdProtocolError)
async def _no_nbd_server(place: Place) -> Sample:
    async def script(stream: anyio.abc.ByteStream) -> None:
        await stream.send(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n" + bytes(200))
        await anyio.sleep_forever()

    async with peer(place.root / "ssh.sock", script) as address:
        return place.row_of(await raised(errors.NbdProtocolError, _open(address)))


@sample_of(errors.NbdRequestError)
async def _a_bad_sector(place: Place) -> Sample:
    async def script(stream: anyio.abc.ByteStream) -> None:
        await stream.send(READY)
        await receive(stream, CLIENT_HELLO)
        request = await receive(stream, REQUEST)
        await stream.send(nbd_wire.error(int.from_bytes(request[8:16]), 5))
        await anyio.sleep_forever()

    async with peer(place.root / "nbd.sock", script) as address:
        return place.row_of(await raised(errors.NbdRequestError, _open(address, read=65536)))


@sample_of(errors.ImageError)
async def _no_image(place: Place) -> Sample:
    return place.row("backup")


@sample_of(errors.ChangedMeanwhileError)
async def _a_domain_that_was_shut_off(place: Place) -> Sample:
    domain = FakeDomain({}, active=False)
    domain.name = "web"
    work = check_still_active(domain, errors.HypervisorError("x"))
    return place.row_of(await raised(errors.ChangedMeanwhileError, work))


@sample_of(errors.StorageError)
async def _a_target_that_is_not_mounted(place: Place) -> Sample:
    place.target.rmdir()
    return place.end("verify")


@sample_of(errors.StorageFullError)
async def _a_full_disk(place: Place) -> Sample:
    path = place.target / "web" / "web_vda.qcow2"
    try:
        Path("/dev/full").write_bytes(b"x")
    except OSError as error:
        return place.row_of(storage_error("write", path, error))
    raise AssertionError("/dev/full takes bytes")


@sample_of(errors.HookError)
async def _a_hook(place: Place) -> Sample:
    place.configure(hooks={"before": "echo backup disk is not mounted >&2; exit 4"})
    return place.row("backup")
