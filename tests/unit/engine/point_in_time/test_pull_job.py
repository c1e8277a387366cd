"""The disks of a running domain by a pull job: freeze, begin, thaw in any weather."""

from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from fakes import nbd_wire as wire
from fakes.hypervisor import FakeDomain, FakeHypervisor
from fakes.moved_clock import moved_clock
from fakes.nbd_peer import peer
from virtbackup_async.engine.point_in_time.interface import DisksRequest
from virtbackup_async.engine.point_in_time.pull_job import open_pull_job
from virtbackup_async.engine.undo.pull_job import end_pull
from virtbackup_async.errors import (
    CallRefusedError,
    ConnectionLostError,
    DomainGoneError,
    HypervisorError,
    NbdConnectionError,
    QuiesceError,
    RollbackError,
)
from virtbackup_async.events import Warned
from virtbackup_async.host.local import LocalHost
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.model.domain import Disk
from virtbackup_async.model.pull import PullJob
from virtbackup_async.model.tracking import Base, Tracked, Tracking
from virtbackup_async.nbd.protocol.constants import SILENCE_TIMEOUT_S, Command, Option, OptionReply
from virtbackup_async.nbd.protocol.request import Request

SIZE_BYTES = 4096
READY_WITHOUT_CONTEXTS = (
    wire.GREETING
    + wire.option_reply(Option.STRUCTURED_REPLY, OptionReply.ACK)
    + wire.option_reply(Option.SET_META_CONTEXT, OptionReply.ACK)
    + wire.export_info(Option.GO, SIZE_BYTES)
    + wire.option_reply(Option.GO, OptionReply.ACK)
)
NOTHING = Tracking()
FIRST_READ = Request(Command.READ, 1, 0, SIZE_BYTES).header


@pytest.fixture
def domain(tmp_path):
    return FakeDomain({"vda": tmp_path / "a.qcow2"})


@pytest.fixture
def job(tmp_path):
    scratch = {"vda": tmp_path / "a.qcow2.vbk-00000001.scratch"}
    return PullJob(tmp_path / "vbk-00000001.sock", scratch)


def pull(domain, job, events, *, quiesce=True, tracking=NOTHING):
    request = DisksRequest(LocalHost(), FakeHypervisor(domain), domain, [], quiesce, events.append)
    return open_pull_job(request, job, tracking)


def failing(error):
    def act():
        raise error

    return act


async def test_a_guest_is_frozen_only_while_the_job_begins(domain, job):
    for file in (job.socket, *job.scratch.values()):
        file.touch()
    async with pull(domain, job, []) as still:
        assert still.quiesced
        assert still.frozen_ms is not None
        expected = [
            "prepare_backup",
            "is_paused_on_io_error",
            "guarded",
            "prepare_quiesce",
            "ready",
            "freeze",
            "begin_backup",
            "thaw",
            "release",
        ]
        assert domain.calls == expected
        assert domain.job == job
    assert domain.job is None
    assert not job.socket.exists()
    assert not job.scratch["vda"].exists()


async def test_without_quiesce_nobody_asks_the_agent(domain, job):
    async with pull(domain, job, [], quiesce=False) as still:
        assert still.quiesced is False
    assert domain.calls == [
        "prepare_backup",
        "is_paused_on_io_error",
        "begin_backup",
        "end_backup",
        "resume",
    ]


@pytest.mark.parametrize("method", ["guarded", "prepare_quiesce", "ready", "freeze"])
async def test_a_guest_that_cannot_be_frozen_is_pulled_all_the_same(domain, job, method):
    domain.before[method] = [failing(QuiesceError("agent is silent", domain="fake"))]
    events = []
    async with pull(domain, job, events) as still:
        assert still.quiesced is False
        assert domain.job == job
    assert ("thaw" in domain.calls) == (method == "freeze")
    (warned,) = [event.message for event in events if isinstance(event, Warned)]
    assert warned == "not quiesced, the backup is only crash-consistent: agent is silent"
    assert still.not_quiesced == "agent is silent"


async def test_a_guest_that_may_still_be_frozen_is_told(domain, job):
    domain.before["freeze"] = [failing(QuiesceError("nonsense", domain="fake"))]
    domain.thaws = None
    events = []
    async with pull(domain, job, events):
        pass
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert warned[0] == "the guest's agent did not answer to the thaw: it may still be frozen"
    assert "not quiesced" in warned[1]


async def test_a_job_that_does_not_begin_leaves_a_thawed_guest(domain, job):
    domain.before["begin_backup"] = [failing(HypervisorError("no space"))]
    with pytest.raises(HypervisorError, match="no space"):
        async with pull(domain, job, []):
            pass
    assert domain.calls[-5:] == ["begin_backup", "thaw", "release", "end_backup", "resume"]


async def test_a_guest_that_its_guard_thawed_was_not_frozen_for_the_backup(domain, job):
    domain.in_time = False
    events = []
    async with pull(domain, job, events) as still:
        assert still.quiesced is False
        assert still.frozen_ms is None
        assert domain.job == job
    assert domain.calls.count("begin_backup") == 1
    assert "stood still" in still.not_quiesced
    (warned,) = [event.message for event in events if isinstance(event, Warned)]
    assert "only crash-consistent" in warned


async def test_a_guest_that_libvirt_left_frozen_is_left_to_its_guard(domain, job):
    lost = ConnectionLostError("client socket is closed")
    domain.before["thaw"] = [failing(lost), failing(lost)]
    async with pull(domain, job, []) as still:
        assert still.quiesced is False
    assert "release" not in domain.calls


async def test_a_guest_is_thawed_through_a_restart_of_libvirt(domain, job):
    lost = ConnectionLostError("client socket is closed")
    domain.before["begin_backup"] = [failing(lost)]
    domain.before["thaw"] = [failing(lost)]
    domain.before["end_backup"] = [failing(lost)]
    with pytest.raises(ConnectionLostError):
        async with pull(domain, job, []):
            pass
    assert domain.calls.count("thaw") == 2
    assert domain.calls.count("end_backup") == 2


async def test_another_job_is_found_before_the_guest_is_frozen(domain, job):
    domain.before["prepare_backup"] = [failing(HypervisorError("another backup job"))]
    with pytest.raises(HypervisorError, match="another"):
        async with pull(domain, job, []):
            pass
    assert "freeze" not in domain.calls


async def test_a_job_for_which_there_is_no_room_says_where(domain, job, tmp_path):
    domain.before["begin_backup"] = [
        failing(HypervisorError("failed to format image", domain="fake"))
    ]
    gone = replace(job, scratch={"vda": tmp_path / "gone" / "a.scratch"})
    with pytest.raises(HypervisorError, match=r"scratch image .*gone/a\.scratch for vda") as raised:
        async with pull(domain, gone, [], quiesce=False):
            pass
    assert "Set `scratch`" in str(raised.value)
    assert raised.value.disk == "vda"


async def test_a_guest_that_has_to_wait_for_room_goes_on_without_its_backup(
    domain, job, monkeypatch
):
    monkeypatch.setattr("virtbackup_async.engine.point_in_time.pull_job.WATCH_INTERVAL_S", 0)

    async def back_up():
        async with pull(domain, job, []):
            domain.before["is_paused_on_io_error"] = [
                failing(ConnectionLostError("libvirt restarts"))
            ]
            domain.halted = True
            await anyio.sleep_forever()

    with pytest.raises(HypervisorError, match=r"no room for scratch.*Set `scratch`"):
        await back_up()
    assert domain.job is None
    assert not domain.halted


async def test_a_guest_that_waited_before_is_backed_up_all_the_same(domain, job, monkeypatch):
    monkeypatch.setattr("virtbackup_async.engine.point_in_time.pull_job.WATCH_INTERVAL_S", 0)
    domain.halted = True
    async with pull(domain, job, []):
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
    assert domain.calls.count("is_paused_on_io_error") == 1


async def test_a_job_that_does_not_end_is_said(domain, job):
    domain.before["end_backup"] = [failing(HypervisorError("stuck"))]
    with pytest.raises(RollbackError, match="still there: stuck"):
        async with pull(domain, job, []):
            pass


async def test_a_domain_that_is_gone_took_its_job_along(domain, job):
    domain.before["end_backup"] = [failing(DomainGoneError("not running"))]
    job.scratch["vda"].touch()
    await end_pull(LocalHost(), FakeHypervisor(domain), domain, job)
    assert not job.scratch["vda"].exists()


@pytest.fixture
def tracked():
    base = Base("b", "b_vda.raw", "virtbackup-1", 0)
    disks = {"vda": Tracked(base, None, checkpoint=True, image_id=None)}
    return Tracking(disks, "virtbackup-2")


async def test_without_a_checkpoint_all_is_read_in_full_and_it_is_said(domain, job, tracked):
    domain.before["begin_backup"] = [failing(CallRefusedError("it has snapshots", domain="fake"))]
    events = []
    async with pull(domain, job, events, tracking=tracked) as still:
        known = still.tracked(Disk("vda", Path("/a"), "raw"))
    assert domain.calls == [
        "prepare_backup", "is_paused_on_io_error", "guarded", "prepare_quiesce", "ready", "freeze",
        "begin_backup", "delete_checkpoint", "begin_backup", "thaw", "release", "end_backup",
        "resume",
    ]  # fmt: skip
    assert known.checkpoint is None
    assert known.before.base is None
    assert "refused a checkpoint" in known.before.reason
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert warned.domain == "fake"
    assert warned.message == (
        "all disks are read in full, and will be the next time: "
        "libvirt refused a checkpoint: it has snapshots"
    )


async def test_a_disk_is_tracked_by_the_checkpoint_of_its_job(domain, job, tracked):
    disks = tracked.disks | {"vdb": replace(tracked.disks["vda"], checkpoint=False)}
    async with pull(domain, job, [], tracking=replace(tracked, disks=disks)) as still:
        known = {dev: still.tracked(Disk(dev, Path("/i"), "raw")) for dev in ("vda", "vdb", "vdc")}
    assert known["vda"].before == tracked.disks["vda"]
    assert known["vda"].checkpoint == "virtbackup-2"
    assert known["vdb"].checkpoint is None
    assert known["vdc"] is None


async def test_the_time_of_the_freeze_is_that_from_its_request_to_the_thaw(
    domain, job, monkeypatch
):
    with moved_clock(monkeypatch) as clock:
        domain.before["freeze"] = [lambda: clock.move(2)]
        domain.before["thaw"] = [lambda: clock.move(3)]
        async with pull(domain, job, []) as still:
            assert 5000 <= still.frozen_ms < 6000


@pytest.mark.parametrize(
    "error",
    [
        ConnectionLostError("gone", domain="fake"),
        DomainGoneError("not running", domain="fake"),
        HypervisorError("libvirt does not answer within 120 s", domain="fake"),
    ],
)
async def test_only_an_answer_of_libvirt_is_taken_for_a_refusal(domain, job, tracked, error):
    domain.before["begin_backup"] = [failing(error)]
    with pytest.raises(type(error)):
        async with pull(domain, job, [], tracking=tracked):
            pass
    assert domain.calls.count("begin_backup") == 1


async def test_a_silent_server_fails_the_backup_and_its_job_is_ended(domain, job, monkeypatch):
    """QEMU is there, and answers no more, as where its storage hangs."""

    async def silent(stream):
        await stream.send(READY_WITHOUT_CONTEXTS)
        heard = b""
        while not heard.endswith(FIRST_READ):
            heard += await stream.receive()
        asked.set()
        await anyio.sleep_forever()

    asked, failed = anyio.Event(), anyio.Event()

    async def back_up(disk):
        with pytest.raises(NbdConnectionError, match="the server was silent for 300 s"):
            async with (
                pull(domain, job, []) as still,
                still.open_stream(disk, disk, BufferPool(), []) as stream,
            ):
                [bytes(chunk.data) async for chunk in stream.pieces()]
        failed.set()

    with moved_clock(monkeypatch) as clock:
        async with peer(job.socket, silent), anyio.create_task_group() as tasks:
            tasks.start_soon(back_up, Disk("vda", Path("/i/a"), "raw"))
            await asked.wait()
            assert domain.job == job
            clock.move(SILENCE_TIMEOUT_S + 1)
            await failed.wait()
    assert domain.job is None
    assert domain.calls[-2:] == ["end_backup", "resume"]


async def test_a_warning_keeps_the_words_of_its_reason(domain, job):
    """A domain can be called as its reason begins."""
    domain.name = "agent"
    domain.before["prepare_quiesce"] = [
        failing(QuiesceError("agent: it is silent", domain="agent"))
    ]
    events = []
    async with pull(domain, job, events) as still:
        assert still.not_quiesced == "agent: it is silent"
    (warned,) = [event.message for event in events if isinstance(event, Warned)]
    assert warned.endswith("only crash-consistent: agent: it is silent")
