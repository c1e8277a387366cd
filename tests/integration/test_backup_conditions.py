"""What a domain may look like, and what may happen to it while it is backed up."""

import filecmp
from functools import partial

import anyio
import pytest
from anyio import to_thread

from lab.disks import DiskSpec
from lab.domains import define, running
from recording import On, Recorder, assert_at_home, back_up, configure, leftovers, restore
from virtbackup_async.events import (
    BackupDone,
    BackupFailed,
    BackupStarted,
    DiskDone,
    DiskSkipped,
    Phase,
    Warned,
)
from virtbackup_async.hypervisor import open_hypervisor

MIB = 1 << 20


@pytest.fixture
def blank(daemon, request):
    """A running domain whose disk the tests write to through the monitor: no guest needed."""
    name = "blank-" + request.node.name[-30:]
    spec = DiskSpec("vda", format="raw", fs=None)
    domain = define(daemon, name, [spec], agent=False)
    domain.start()
    yield domain
    domain.undefine()


@pytest.fixture
def at_rest(daemon, request):
    domain = define(daemon, "rest-" + request.node.name[-30:], [DiskSpec("vda", "raw", fs=None)])
    yield domain
    domain.undefine()


def frozen_equals(recorder, restored, images):
    return all(
        filecmp.cmp(frozen, restored / images[dev].name, shallow=False)
        for dev, frozen in recorder.frozen.items()
    )


async def test_only_the_wanted_disks_are_backed_up(daemon, tmp_path):
    disks = [DiskSpec("vda", fs=None), DiskSpec("vdb", fs=None), DiskSpec("hdc", kind="cdrom")]
    with running(daemon, "filtered", disks, agent=False) as domain:
        images = domain.images()
        hosts = [{"host": "filtered", "disks": ["vdb"]}]
        recorder = await back_up(configure(tmp_path, daemon.uri, hosts), Recorder(tmp_path / "f"))
        assert_at_home(domain, images)
    assert [event.disk for event in recorder.of(DiskDone)] == ["vdb"]
    assert {event.disk: event.reason for event in recorder.of(DiskSkipped)} == {
        "vda": "not listed in `disks` of the configuration",
        "hdc": "a cdrom",
    }
    restored = await restore(configure(tmp_path, daemon.uri, hosts), "filtered", tmp_path / "r")
    assert set(restored.files) == {images["vdb"].name, "filtered.xml"}


async def test_a_backing_chain_is_restored_whole(daemon, tmp_path):
    with running(daemon, "chained", [DiskSpec("vda", backing=2)]) as domain:
        chain = [domain.images()["vda"]]
        chain += [chain[0].with_name(chain[0].stem + f".base{n}.qcow2") for n in (0, 1)]
        config = configure(tmp_path, daemon.uri, ["chained"], quiesce=True, packager="zstd")
        recorder = Recorder(tmp_path / "frozen")
        recorder.watch(domain)
        images = domain.images()
        assert (await back_up(config, recorder)).done.quiesced
        await restore(config, "chained", tmp_path / "restored")
        assert_at_home(domain, images)
        assert frozen_equals(recorder, tmp_path / "restored", images)
        for below in chain[1:]:
            assert filecmp.cmp(below, tmp_path / "restored" / below.name, shallow=False)


async def test_a_guest_without_an_agent_is_backed_up_with_a_warning(daemon, blank, tmp_path):
    config = configure(tmp_path, daemon.uri, [blank.name], quiesce=True)
    recorder = await back_up(config, Recorder(tmp_path / "frozen"))
    assert recorder.done.quiesced is False
    (warning,) = recorder.of(Warned)
    assert "not quiesced" in warning.message
    assert "agent" in warning.message


async def test_a_paused_domain_is_backed_up_and_stays_paused(daemon, blank, tmp_path):
    daemon.virsh("suspend", blank.name)
    images = blank.images()
    recorder = await back_up(configure(tmp_path, daemon.uri, [blank.name]), Recorder(tmp_path))
    assert recorder.done
    assert blank.state() == "paused"
    assert_at_home(blank, images)


async def test_writes_during_the_copy_reach_the_image_and_not_the_backup(daemon, blank, tmp_path):
    blank.qemu_io("vda", "write -P 1 8M 1M")
    config = configure(tmp_path, daemon.uri, [blank.name], packager="directory")
    recorder = On(tmp_path / "frozen")
    recorder.watch(blank)
    images = blank.images()
    recorder.arm(Phase.COPYING, partial(blank.qemu_io, "vda", "write -P 2 8M 1M"))
    assert (await back_up(config, recorder)).done
    await restore(config, blank.name, tmp_path / "restored")
    restored = tmp_path / "restored" / images["vda"].name
    assert restored.read_bytes()[8 * MIB : 9 * MIB] == b"\x01" * MIB
    assert frozen_equals(recorder, tmp_path / "restored", images)
    assert_at_home(blank, images)
    assert images["vda"].read_bytes()[8 * MIB : 9 * MIB] == b"\x02" * MIB


async def test_a_domain_destroyed_during_the_copy_keeps_its_writes(daemon, blank, tmp_path):
    """What was copied stood still, so the backup is good; the overlay is committed offline."""
    images = blank.images()

    def lose_it():
        blank.qemu_io("vda", "write -P 7 16M 1M")
        blank.qemu_io("vda", "flush")
        blank.destroy()

    recorder = On(tmp_path / "frozen").arm(Phase.COPYING, lose_it)
    recorder.watch(blank)
    config = configure(tmp_path, daemon.uri, [blank.name])
    assert (await back_up(config, recorder)).done
    await restore(config, blank.name, tmp_path / "restored")
    assert frozen_equals(recorder, tmp_path / "restored", images)
    assert_at_home(blank, images)
    assert images["vda"].read_bytes()[16 * MIB : 17 * MIB] == b"\x07" * MIB


async def test_a_domain_undefined_during_the_copy_keeps_its_writes(daemon, tmp_path):
    domain = define(daemon, "forgotten", [DiskSpec("vda", format="raw", fs=None)], agent=False)
    domain.start()
    image = domain.images()["vda"]

    def forget_it():
        domain.qemu_io("vda", "write -P 6 16M 1M")
        domain.qemu_io("vda", "flush")
        domain.undefine()

    recorder = On(tmp_path / "frozen").arm(Phase.COPYING, forget_it)
    recorder = await back_up(configure(tmp_path, daemon.uri, ["forgotten"]), recorder)
    assert recorder.done
    assert leftovers(image.parent) == []
    assert image.read_bytes()[16 * MIB : 17 * MIB] == b"\x06" * MIB


async def test_a_domain_started_during_the_copy_is_backed_up_running(daemon, at_rest, tmp_path):
    images = at_rest.images()
    config = configure(tmp_path, daemon.uri, [at_rest.name])
    recorder = On(tmp_path / "frozen").arm(Phase.COPYING, at_rest.start)
    assert (await back_up(config, recorder)).done.quiesced is False
    assert "starting over" in recorder.of(Warned)[0].message
    assert at_rest.state() == "running"
    assert_at_home(at_rest, images)
    assert leftovers(tmp_path) == []


async def test_one_domain_failing_does_not_touch_the_others(daemon, blank, at_rest, tmp_path):
    at_rest.images()["vda"].unlink()
    hosts = [blank.name, at_rest.name, "nobody"]
    recorder = await back_up(configure(tmp_path, daemon.uri, hosts), Recorder(tmp_path / "f"))
    assert [done.domain for done in recorder.of(BackupDone)] == [blank.name]
    failed = {event.domain: event for event in recorder.of(BackupFailed)}
    assert failed[at_rest.name].exit_code == 21
    assert str(at_rest.images()["vda"]) in failed[at_rest.name].error
    assert failed["nobody"].exit_code == 10
    assert leftovers(tmp_path) == []


async def test_an_unknown_disk_fails_its_domain_before_anything_is_made(daemon, blank, tmp_path):
    hosts = [{"host": blank.name, "disks": ["vdz"]}]
    recorder = await back_up(configure(tmp_path, daemon.uri, hosts), Recorder(tmp_path / "f"))
    assert "no disk vdz" in recorder.failed.error
    assert list((tmp_path / "target").rglob("*")) == []


async def test_the_same_domain_is_never_backed_up_twice_at_once(daemon, blank, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (configure(tmp_path / sub, daemon.uri, [blank.name]) for sub in "ab")
    events = Recorder(tmp_path / "f")

    async def both():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(back_up, first, events)
            tasks.start_soon(back_up, second, events)

    await both()
    assert len(events.of(BackupDone)) == 1
    (failed,) = events.of(BackupFailed)
    assert failed.exit_code == 11
    assert "works on this domain" in failed.error


@pytest.mark.parametrize("threads", [1, 3])
async def test_many_domains_at_once_but_no_more_than_threads(daemon, tmp_path, threads):
    names = [f"many-{number}" for number in range(6)]
    domains = [define(daemon, name, [DiskSpec("vda", fs=None)], agent=False) for name in names]
    try:
        for domain in domains[::2]:
            domain.start()
        config = configure(tmp_path, daemon.uri, ["r:^many-"], threads=threads)
        recorder = await back_up(config, Recorder(tmp_path / "f"))
    finally:
        for domain in domains:
            domain.undefine()
    assert sorted(done.domain for done in recorder.of(BackupDone)) == names
    at_work, most = 0, 0
    for event in recorder.events:
        at_work += isinstance(event, BackupStarted) - isinstance(event, BackupDone)
        most = max(most, at_work)
    assert most == threads


async def test_a_cancelled_backup_leaves_nothing(daemon, blank, tmp_path):
    images = blank.images()
    recorder = On(tmp_path / "frozen")
    with anyio.CancelScope() as scope:
        recorder.arm(Phase.COPYING, scope.cancel)
        async with open_hypervisor(daemon.uri):
            await back_up(configure(tmp_path, daemon.uri, [blank.name]), recorder)
    assert recorder.failed.cancelled
    assert not recorder.failed.left_pending
    await to_thread.run_sync(assert_at_home, blank, images)
    assert [path for path in (tmp_path / "target").rglob("*") if path.is_file()] == []
