"""The wait for a block job, with a libvirt that answers what the test wants."""

import asyncio

import anyio
import libvirt
import pytest

from fakes.moved_clock import moved_clock
from virtbackup_async.errors import BlockJobError, DomainGoneError, HypervisorError
from virtbackup_async.hypervisor import block_commit as commit_module
from virtbackup_async.hypervisor.block_commit import commit_and_pivot
from virtbackup_async.hypervisor.block_jobs import BlockJobEvents

UUID = "00000000-0000-4000-8000-000000000000"


async def before_pivot():
    """Nothing to note."""


class ScriptedDomain:
    """A domain whose block job goes through ``states``, one a look; then stays at the last."""

    def __init__(self, *states, pivots=()):
        self.states = list(states)
        self.pivots = list(pivots)
        self.calls = []

    def name(self):
        return "web"

    def UUIDString(self):  # noqa: N802 -- libvirt's name
        return UUID

    def blockCommit(self, *args):  # noqa: N802 -- libvirt's name
        self.calls.append("commit")
        self.committed = args

    def blockJobInfo(self, dev, flags):  # noqa: N802 -- libvirt's name
        assert (dev, flags) == ("vda", 0)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return {"cur": state[0], "end": state[1]} if state else {}

    def blockJobAbort(self, dev, flags):  # noqa: N802 -- libvirt's name
        assert flags == libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
        self.calls.append("pivot")
        if self.pivots and (error := self.pivots.pop(0)) is not None:
            raise error


class Connection:
    """Calls straight through; ``before`` is what happens at the first look at the job."""

    def __init__(self, event=None):
        self.block_jobs = BlockJobEvents()
        self.event = event

    async def call_running(self, what, domain, function, *args):
        await anyio.lowlevel.checkpoint()
        if function.__name__ == "blockJobInfo" and self.event is not None:
            event, self.event = self.event, None
            event(self.block_jobs)
        return function(*args)


def block_job(status, dev="vda", uuid=UUID):
    domain = ScriptedDomain(None)
    domain.UUIDString = lambda: uuid
    return lambda events: events.on_block_job(None, domain, dev, 4, status, None)


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(commit_module, "POLL_INTERVAL_S", 0.001)
    monkeypatch.setattr(commit_module, "EVENT_DELAY_S", 0.001)


async def test_readiness_is_found_by_polling_alone():
    domain = ScriptedDomain((1, 9), (5, 9), (9, 9))
    await commit_and_pivot(Connection(), domain, "vda", before_pivot)
    assert domain.calls == ["commit", "pivot"]


async def test_the_overlay_that_the_guest_writes_to_is_committed_into_the_image_below_it():
    domain = ScriptedDomain((9, 9))
    await commit_and_pivot(Connection(), domain, "vda", before_pivot)
    active = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
    shallow = libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW
    assert domain.committed == ("vda", None, None, 0, active | shallow)


async def test_the_pivot_comes_once_all_data_is_below_and_that_is_noted():
    domain = ScriptedDomain((1, 9), (9, 9))

    async def note():
        domain.calls.append("note")

    await commit_and_pivot(Connection(), domain, "vda", note)
    assert domain.calls == ["commit", "note", "pivot"]


async def test_a_job_is_not_given_up_while_it_makes_progress(monkeypatch):
    """Each step takes almost as long as a job may stand still."""
    states = [(position, 9) for position in range(10)]
    with moved_clock(monkeypatch) as clock:
        domain = ScriptedDomain(*states)
        look = domain.blockJobInfo

        def slow(*args):
            clock.move(commit_module.STALL_TIMEOUT_S - 1)
            return look(*args)

        slow.__name__ = "blockJobInfo"
        domain.blockJobInfo = slow
        await commit_and_pivot(Connection(), domain, "vda", before_pivot)
    assert domain.calls == ["commit", "pivot"]


async def test_readiness_is_found_by_the_event_alone():
    domain = ScriptedDomain((1, 9))
    connection = Connection(block_job(libvirt.VIR_DOMAIN_BLOCK_JOB_READY))
    await commit_and_pivot(connection, domain, "vda", before_pivot)
    assert domain.calls == ["commit", "pivot"]


async def test_how_a_vanished_job_ended_is_told_by_an_event_that_is_behind(monkeypatch):
    monkeypatch.setattr(commit_module, "EVENT_DELAY_S", 20)
    failed = block_job(libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED)
    loop = asyncio.get_running_loop()
    connection = Connection(lambda events: loop.call_soon(failed, events))
    with anyio.fail_after(10), pytest.raises(BlockJobError, match="the block job failed"):
        await commit_and_pivot(connection, ScriptedDomain(None), "vda", before_pivot)


async def test_events_of_other_disks_and_domains_are_not_taken():
    for event in (
        block_job(libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED, dev="vdb"),
        block_job(libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED, uuid="another"),
    ):
        domain = ScriptedDomain((1, 9), (9, 9))
        await commit_and_pivot(Connection(event), domain, "vda", before_pivot)
        assert domain.calls == ["commit", "pivot"]


async def test_a_job_of_a_killed_backup_is_not_started_again():
    domain = ScriptedDomain((9, 9))
    await commit_and_pivot(Connection(), domain, "vda", before_pivot, resume=True)
    assert domain.calls == ["pivot"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED, "failed"),
        (libvirt.VIR_DOMAIN_BLOCK_JOB_CANCELED, "was cancelled"),
    ],
)
async def test_a_job_that_ends_badly_is_an_error_at_once(status, words):
    connection, domain = Connection(block_job(status)), ScriptedDomain((1, 9))
    with anyio.fail_after(5), pytest.raises(BlockJobError, match=f"web: commit vda: .* {words}"):
        await commit_and_pivot(connection, domain, "vda", before_pivot)


async def test_a_job_that_vanishes_is_an_error():
    with anyio.fail_after(5), pytest.raises(BlockJobError, match="vanished"):
        await commit_and_pivot(Connection(), ScriptedDomain((1, 9), None), "vda", before_pivot)


async def test_a_job_without_progress_is_given_up(monkeypatch):
    monkeypatch.setattr(commit_module, "STALL_TIMEOUT_S", 0.02)
    with anyio.fail_after(5), pytest.raises(BlockJobError, match="no progress"):
        await commit_and_pivot(Connection(), ScriptedDomain((1, 9)), "vda", before_pivot)


async def test_a_domain_that_stops_is_said():
    def stop(events):
        domain = ScriptedDomain(None)
        events.on_lifecycle(None, domain, libvirt.VIR_DOMAIN_EVENT_STOPPED, 0, None)

    with anyio.fail_after(5), pytest.raises(DomainGoneError):
        await commit_and_pivot(Connection(stop), ScriptedDomain((1, 9)), "vda", before_pivot)


def refusal(code, text="block copy still active"):
    """What translation makes of a refusal of libvirt's."""
    said = libvirt.libvirtError("pivot")
    said.err = (code, libvirt.VIR_FROM_QEMU, text, 2, None, None, None, 0, 0)
    error = HypervisorError(text)
    error.__cause__ = said
    return error


async def test_another_refusal_that_speaks_of_readiness_is_not_tried_again():
    no = refusal(libvirt.VIR_ERR_INTERNAL_ERROR, "disk 'not ready for pivot yet' is in use")
    domain = ScriptedDomain((9, 9), pivots=[no, None])
    with pytest.raises(HypervisorError, match="in use"):
        await commit_and_pivot(Connection(), domain, "vda", before_pivot)
    assert domain.calls == ["commit", "pivot"]


async def test_a_pivot_too_early_is_tried_again():
    not_ready = refusal(libvirt.VIR_ERR_BLOCK_COPY_ACTIVE)
    domain = ScriptedDomain((9, 9), pivots=[not_ready, not_ready, None])
    await commit_and_pivot(Connection(), domain, "vda", before_pivot)
    assert domain.calls == ["commit", "pivot", "pivot", "pivot"]


async def test_a_pivot_that_never_works_is_given_up(monkeypatch):
    monkeypatch.setattr(commit_module, "PIVOT_RETRIES", 3)
    domain = ScriptedDomain((9, 9), pivots=[refusal(libvirt.VIR_ERR_BLOCK_COPY_ACTIVE)] * 9)
    with pytest.raises(BlockJobError, match="could not be pivoted"):
        await commit_and_pivot(Connection(), domain, "vda", before_pivot)
