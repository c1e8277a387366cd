"""An object store that goes away while a guest is backed up into it."""

import pytest

from faults.lossy_proxy import Fault, lossy_proxy
from lab.disks import DiskSpec
from lab.domains import define
from object_stores import IMPATIENT, new_location
from recording import On, assert_at_home, back_up, configure
from virtbackup_async.events import BackupDone, BackupFailed, Phase
from virtbackup_async.repository.storage.objects import storage as module
from virtbackup_async.repository.storage.objects.requests import Patience

HASTY = Patience(answer_s=5, first_s=1, gone_s=1, pause_s=0.01, longest_pause_s=0.05)


@pytest.fixture
def guests(daemon, request):
    """Two running domains with data on their disks."""
    made = []
    for number in (1, 2):
        name = f"{request.node.name[:30]}-{number}"
        domain = define(daemon, name, [DiskSpec("vda", format="raw", fs=None)], agent=False)
        made.append(domain)
        domain.start()
        domain.qemu_io("vda", f"write -P {number} 1M 12M")
    yield made
    for domain in made:
        domain.undefine()


@pytest.fixture
def proxy(object_server):
    with lossy_proxy(object_server.endpoint) as proxy:
        yield proxy


def configured(directory, daemon, guests, proxy):
    location = new_location(proxy.endpoint)
    target = {"url": str(location), "endpoint": proxy.endpoint, "region": "us-east-1"}
    names = [domain.name for domain in guests]
    group = {"target": target, "packager": "repository", "method": "snapshot"}
    return configure(directory, daemon.uri, names, threads=1, **group)


async def test_a_store_that_comes_back_fails_no_backup(
    daemon, guests, proxy, tmp_path, monkeypatch
):
    """It is tried again, and the guest knows nothing of it."""
    monkeypatch.setattr(module, "Patience", lambda: IMPATIENT)
    domain, _ = guests
    images = domain.images()
    lost = []

    def lose_some(_method, _path):
        if len(lost) < 12:
            lost.append(proxy)
            return Fault.LOSE_REQUEST
        return None

    def go_away():
        proxy.plan = lose_some

    recorder = On(tmp_path / "f").arm(Phase.COPYING, go_away)
    recorder = await back_up(configured(tmp_path, daemon, [domain], proxy), recorder)
    assert recorder.done
    assert len(lost) == 12
    assert_at_home(domain, images)


async def test_a_store_that_stays_away_fails_one_backup_and_the_next_goes_on(
    daemon, guests, proxy, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "Patience", lambda: HASTY)
    images = [domain.images() for domain in guests]

    class ComesBack(On):
        def __call__(self, event):
            super().__call__(event)
            if isinstance(event, BackupFailed):
                proxy.plan = lambda _method, _path: None

    def go_away():
        proxy.plan = lambda _method, _path: Fault.LOSE_REQUEST

    recorder = ComesBack(tmp_path / "f").arm(Phase.COPYING, go_away)
    recorder = await back_up(configured(tmp_path, daemon, guests, proxy), recorder)
    (failed,) = recorder.of(BackupFailed)
    assert failed.exit_code == 22
    assert "cannot reach the store" in failed.error or "was cut off" in failed.error
    assert not failed.left_pending
    (done,) = recorder.of(BackupDone)
    assert {failed.domain, done.domain} == {domain.name for domain in guests}
    for domain, own in zip(guests, images, strict=True):
        assert_at_home(domain, own)
