"""What a run expects to read, said before it is known."""

import os
from uuid import uuid4

import pytest
import yaml

from fakes.hypervisor import DescribedDomain, FakeHypervisor
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.backup.expectation import tell_expected
from virtbackup_async.engine.backup.session import BackupRequest, plan_run, run_backup
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.events import (
    BackupDone,
    BackupsExpected,
    DisksHeld,
    ExpectedDisk,
    HookEnded,
    HookStarted,
    TargetSpace,
)

KIB = 1024
ALL = {"hosts": ["fake"], "autostart": True}


class Site:
    """A configuration with a shut-off domain of two disks."""

    def __init__(self, root):
        self.root = root
        self.target = root / "target"
        self.target.mkdir()
        self.images = {dev: root / f"{dev}.raw" for dev in ("vda", "vdb")}
        for number, image in enumerate(self.images.values(), 1):
            image.write_bytes(os.urandom(number * 64 * KIB))
        self.events = []

    def runtime(self, group=ALL, **settings):
        path = self.root / "config.yml"
        default = {"target": str(self.target), "packager": "directory"}
        path.write_text(yaml.safe_dump({"default": default, "groups": {"main": group}, **settings}))
        domain = DescribedDomain(self.images, active=False)
        domain.uuid = str(uuid4())
        return Runtime(load_config(path), self.events.append, FakeHypervisor(domain))

    async def expected(self, **more):
        """Return the last word on the only backup, and how often one came."""
        runtime = self.runtime(**more)
        plan = await plan_run(runtime, BackupRequest())
        self.events.clear()
        await tell_expected(runtime, plan.backups)
        said = self.of(BackupsExpected)
        (backup,) = said[-1].backups
        return backup, len(said)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


SIZES = (ExpectedDisk("vda", 64 * KIB), ExpectedDisk("vdb", 128 * KIB))


async def test_the_last_backup_says_how_much_the_next_one_reads(site):
    await run_backup(site.runtime(), BackupRequest())
    (done,) = site.of(BackupDone)
    (site.target / "fake" / "zz-notes.json").write_text("no definition")
    backup, words = await site.expected()
    assert (backup.group, backup.domain, backup.target) == ("main", "fake", str(site.target))
    assert (backup.last, backup.disks, words) == (done.backup, SIZES, 1)


async def test_without_a_backup_the_images_say_it(site):
    backup, words = await site.expected()
    assert (backup.last, backup.disks, words) == (None, SIZES, 2)


async def test_only_the_wanted_disks_count(site):
    only = {**ALL, "hosts": [{"host": "fake", "disks": ["vdb"]}]}
    assert (await site.expected(group=only))[0].disks == SIZES[1:]
    await run_backup(site.runtime(), BackupRequest())
    assert (await site.expected(group=only))[0].disks == SIZES[1:]


def garble(path):
    path.write_text("{")


def link(path):
    aside = path.rename(path.with_name("aside"))
    path.symlink_to(aside)


@pytest.mark.parametrize("spoil", [garble, link])
async def test_a_definition_that_cannot_be_read_leaves_it_to_the_images(site, spoil):
    await run_backup(site.runtime(), BackupRequest())
    (definition,) = site.target.glob("fake/*.json")
    spoil(definition)
    backup, _ = await site.expected()
    assert (backup.last, backup.disks) == (None, SIZES)


async def test_nothing_is_expected_of_a_domain_that_nobody_can_ask(site):
    runtime = site.runtime()
    plan = await plan_run(runtime, BackupRequest())

    domain = DescribedDomain(site.images, active=False)
    domain.live = domain.persistent = None
    broken = Runtime(runtime.config, site.events.append, FakeHypervisor(domain))
    await tell_expected(broken, plan.backups)
    assert [event.backups[0].disks for event in site.of(BackupsExpected)] == [()]


async def test_a_missing_image_counts_nothing_and_hides_no_other(site):
    site.images["vda"].unlink()
    backup, _ = await site.expected()
    assert backup.disks == (ExpectedDisk("vda", 0), SIZES[1])


async def test_a_run_says_what_the_view_shows(site):
    hooks = {"before": "true", "after": "false"}
    await run_backup(site.runtime(hooks=hooks), BackupRequest())
    (held,) = site.of(DisksHeld)
    (done,) = site.of(BackupDone)
    assert (held.group, held.domain, held.backup) == ("main", "fake", done.backup)
    assert (held.quiesced, held.frozen_ms) == (None, None), "it is shut off"
    (space,) = site.of(TargetSpace)
    assert space.target == str(site.target)
    assert 0 < space.free_bytes <= space.total_bytes
    assert [event.hook for event in site.of(HookStarted)] == ["before", "after"]
    assert [event.hook for event in site.of(HookEnded)] == ["before", "after"]
