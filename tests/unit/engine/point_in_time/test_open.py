"""Which of the four ways opens the disks, and which names of the pending file it uses."""

import pytest

from fakes.hypervisor import FakeDomain, FakeHypervisor
from virtbackup_async.engine.point_in_time.interface import DisksRequest
from virtbackup_async.engine.point_in_time.offline import OfflineDisks, OfflineNbdDisks
from virtbackup_async.engine.point_in_time.open import WantedDisks, open_disks
from virtbackup_async.engine.point_in_time.pull_job import PullDisks
from virtbackup_async.engine.point_in_time.snapshot import SnapshotDisks
from virtbackup_async.events import Phase, PhaseChanged
from virtbackup_async.host.local import LocalHost
from virtbackup_async.model.backup import Packager, Pending, PendingDisk
from virtbackup_async.model.domain import BackingImage, Disk
from virtbackup_async.model.pull import PullJob
from virtbackup_async.model.tracking import Tracking


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "vda.img"
    path.write_bytes(b"x" * 4096)
    return path


@pytest.fixture
def events():
    return []


def pending(image, *, socket=None):
    scratch = str(image.with_suffix(".scratch")) if socket else None
    overlay = None if socket else str(image.with_suffix(".vbk-1"))
    disk = PendingDisk(str(image), "raw", overlay, "b_vda.raw", scratch=scratch)
    return Pending(
        "b", 1, "fake", "<domain/>", {"vda": disk}, "1", 0, Packager("directory"), socket=socket
    )


def opened(domain, image, events, begun, *, pull):
    async def note(dev):
        """Nothing to note."""

    disk = Disk("vda", image, "raw")
    chains = {"vda": (BackingImage(image, "raw"),)} if pull else {}
    wanted = WantedDisks(domain.live is not None, pull, (disk,), chains, Tracking())
    request = DisksRequest(
        LocalHost(), FakeHypervisor(domain), domain, ["vdz"], quiesce=False, emit=events.append
    )
    return open_disks(request, wanted, begun, note)


@pytest.mark.parametrize(("pull", "kind"), [(False, OfflineDisks), (True, OfflineNbdDisks)])
async def test_nothing_is_done_to_a_domain_that_is_shut_off(image, events, pull, kind):
    domain = FakeDomain({"vda": image}, active=False)
    async with opened(domain, image, events, pending(image), pull=pull) as disks:
        assert type(disks) is kind
        await disks.release(Disk("vda", image, "raw"))
    assert set(domain.calls) == {"info"}
    assert events == []


async def test_a_snapshot_uses_the_overlays_of_the_pending_file(image, events):
    domain = FakeDomain({"vda": image})
    async with opened(domain, image, events, pending(image), pull=False) as disks:
        assert type(disks) is SnapshotDisks
        assert domain.live == {"vda": image.with_suffix(".vbk-1")}
    assert domain.live == {"vda": image}
    assert events[0] == PhaseChanged("fake", Phase.FREEZING)


async def test_a_pull_job_uses_the_socket_of_the_pending_file(image, events, tmp_path):
    domain = FakeDomain({"vda": image})
    begun = pending(image, socket=str(tmp_path / "vbk-00000001.sock"))
    async with opened(domain, image, events, begun, pull=True) as disks:
        assert type(disks) is PullDisks
        scratch = {"vda": image.with_suffix(".scratch")}
        assert domain.job == PullJob(tmp_path / "vbk-00000001.sock", scratch)
        assert domain.live == {"vda": image}
    assert domain.job is None
    assert events[0] == PhaseChanged("fake", Phase.FREEZING)
