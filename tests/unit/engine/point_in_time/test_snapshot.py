"""Snapshots that go wrong in the ways a real guest agent can, one at a time."""

import pytest

from fakes.hypervisor import FakeDomain, FakeHypervisor
from virtbackup_async.engine.point_in_time.interface import DisksRequest
from virtbackup_async.engine.point_in_time.snapshot import open_snapshot
from virtbackup_async.engine.undo.overlay import OverlaidDisk
from virtbackup_async.errors import (
    BlockJobError,
    ChangedMeanwhileError,
    ConnectionLostError,
    DomainGoneError,
    QuiesceError,
    RollbackError,
    SnapshotError,
)
from virtbackup_async.events import Warned
from virtbackup_async.host.local import LocalHost
from virtbackup_async.model.domain import Disk


@pytest.fixture
def images(tmp_path):
    paths = {dev: tmp_path / f"{dev}.img" for dev in ("vda", "vdb")}
    for path in paths.values():
        path.write_bytes(b"x" * 4096)
    return paths


@pytest.fixture
def domain(images):
    return FakeDomain(images)


@pytest.fixture
def held(images):
    return {
        dev: OverlaidDisk(dev, path, "raw", path.with_suffix(".vbk-1"))
        for dev, path in images.items()
    }


def take(domain, held, events, *, quiesce=True):
    async def note(dev):
        """The pending file, which these tests have not."""

    request = DisksRequest(LocalHost(), FakeHypervisor(domain), domain, [], quiesce, events.append)
    return open_snapshot(request, "b", held, note)


def failing(error):
    def act():
        raise error

    return act


def warnings(events):
    return [event.message for event in events if isinstance(event, Warned)]


async def test_a_guest_that_freezes_is_quiesced(domain, held, images):
    events = []
    async with take(domain, held, events) as still:
        assert still.quiesced
        assert still.frozen_ms is not None
        assert domain.live == {dev: disk.overlay for dev, disk in held.items()}
    assert domain.live == domain.persistent == images
    assert warnings(events) == []


async def test_an_agent_that_does_not_answer_costs_consistency_and_a_warning(domain, held):
    events = []
    domain.before["prepare_quiesce"] = [failing(QuiesceError("agent is silent"))]
    async with take(domain, held, events) as still:
        assert still.quiesced is False
        assert still.frozen_ms is None
    assert "agent is silent" in warnings(events)[0]
    assert still.not_quiesced == "agent is silent"
    assert domain.calls.count("snapshot") == 1


async def test_a_freeze_that_fails_is_thawed_and_tried_without(domain, held):
    events = []
    domain.before["snapshot"] = [failing(QuiesceError("freeze timed out"))]
    async with take(domain, held, events) as still:
        assert still.quiesced is False
    assert domain.calls[:4] == ["prepare_quiesce", "snapshot", "thaw", "sources"]
    assert "only crash-consistent" in warnings(events)[0]


async def test_a_guest_that_may_still_be_frozen_is_told(domain, held):
    events = []
    domain.before["snapshot"] = [failing(QuiesceError("nonsense"))]
    domain.thaws = None
    async with take(domain, held, events) as still:
        assert still.quiesced is False
    assert "it may still be frozen" in warnings(events)[0]


async def test_a_guest_that_libvirt_froze_before_it_died_is_thawed(domain, held):
    domain.before["snapshot"] = [failing(ConnectionLostError("client socket is closed"))]
    with pytest.raises(ConnectionLostError):
        async with take(domain, held, []):
            pass
    assert "thaw" in domain.calls


async def test_a_thaw_that_fails_after_the_snapshot_is_no_second_snapshot(domain, held):
    def freeze_and_fail():
        domain.live = {dev: disk.overlay for dev, disk in held.items()}
        raise QuiesceError("thaw timed out")

    events = []
    domain.before["snapshot"] = [freeze_and_fail]
    async with take(domain, held, events) as still:
        assert still.quiesced
    assert domain.calls.count("snapshot") == 1
    assert "thaw" in domain.calls
    assert "thaw timed out" in warnings(events)[0]


async def test_every_disk_is_put_back_also_when_one_cannot_be(domain, held, images):
    events = []
    with pytest.raises(RollbackError, match="no space") as raised:
        async with take(domain, held, events, quiesce=False):
            domain.before["commit"] = [failing(BlockJobError("no space"))]
    assert "clean -b" in str(raised.value)
    assert domain.live is not None
    assert sorted(domain.live[dev] == image for dev, image in images.items()) == [False, True]


async def test_what_was_released_is_not_put_back_again(domain, held, images):
    async with take(domain, held, [], quiesce=False) as still:
        await still.release(Disk("vda", images["vda"], "raw"))
        assert domain.live["vda"] == images["vda"]
        commits = domain.calls.count("commit")
    assert domain.calls.count("commit") == commits + 1


@pytest.mark.parametrize("refusal", [SnapshotError, DomainGoneError])
@pytest.mark.parametrize("is_active", [False, True])
async def test_a_domain_that_was_shut_off_before_its_snapshot_is_begun_anew(
    domain, held, is_active, refusal
):
    def refuse():
        if not is_active:
            domain.live = None
        raise refusal("fake: cannot perform block operations while checkpoint exists")

    domain.before["snapshot"] = [refuse]
    with pytest.raises(refusal if is_active else ChangedMeanwhileError):
        async with take(domain, held, [], quiesce=False):
            pass
