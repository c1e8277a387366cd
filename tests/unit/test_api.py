"""The public door: what each method returns is what its events say, and nothing is printed."""

from contextlib import asynccontextmanager

import pytest

from fakes.hypervisor import DescribedDomain, FakeHypervisor
from fakes.site import DAY_S, Site
from fakes.stored_backup import DATE
from virtbackup_async import (
    BackupRun,
    VirtBackupError,
    events,
    load_config,
    open_virtbackup,
)
from virtbackup_async.errors import BackupsFailedError, ConfigError, ConnectionFailedError
from virtbackup_async.hypervisor import hypervisor as hypervisor_module
from virtbackup_async.model.backup import Packager


@pytest.fixture
async def site(tmp_path):
    site = Site(tmp_path)
    site.configure()
    for packager, day in ((Packager("directory"), 0), (Packager("repository"), 1)):
        await site.store(packager, date=DATE + day * DAY_S)
    return site


@pytest.fixture
def path(site):
    return site.root / "config.yml"


def of(told, kind):
    return tuple(event for event in told if isinstance(event, kind))


@pytest.fixture
def libvirt(monkeypatch):
    """Stand in for libvirt; ``refuses`` says how many times it is not there."""

    class Libvirt:
        refuses = 0
        opened = 0
        hypervisor = FakeHypervisor()

        @asynccontextmanager
        async def connect(self, uri, **_credentials):
            if self.refuses:
                self.refuses -= 1
                raise ConnectionFailedError("libvirt does not answer")
            self.opened += 1
            yield self.hypervisor

    libvirt = Libvirt()
    monkeypatch.setattr(hypervisor_module, "open_hypervisor", libvirt.connect)
    return libvirt


async def test_what_needs_no_libvirt_returns_what_was_told(site, path, tmp_path, capfd):
    told = []
    async with open_virtbackup(path, on_event=told.append) as vb:
        listing = await vb.list()
        assert listing.backups == of(told, events.ListedBackup)
        assert len(listing.backups) == 2
        verified = await vb.verify(["all"], domains=["web"])
        assert verified.ok
        assert verified.good == of(told, events.VerifyDone)
        assert verified.repositories == of(told, events.RepositoryChecked)
        stats = await vb.stats(each_backup=True)
        assert [group.backups for group in stats.groups] == [2]
        assert stats.backups == of(told, events.BackupStats)
        assert stats.repositories == of(told, events.RepositoryStats)
        repaired = await vb.repair(quick=True)
        assert repaired.repositories == of(told, events.RepositoryRepaired)
        assert repaired.good == of(told, events.VerifyDone)[2:]
        found = await vb.find("all", "web", disks=["vda"])
        restored = await vb.restore(found, tmp_path / "restored")
        assert (restored,) == of(told, events.RestoreDone)
        exported = await vb.export(found, "vda", str(tmp_path / "disk"), image_format="raw")
        assert (exported,) == of(told, events.DiskExported)
        assert (tmp_path / "disk").read_bytes() == site.root.joinpath("image.raw").read_bytes()
        pinned = await vb.pin("all", "web")
        unpinned = await vb.unpin("all", "web", found.definition.name)
        assert (pinned, unpinned) == of(told, events.PinChanged)
        assert (pinned.pinned, unpinned.pinned) == (True, False)
        cleaned = await vb.clean(dry_run=True)
        assert cleaned.verdicts == of(told, events.CleanVerdict)
        assert len(cleaned.verdicts) == 2
        assert cleaned.removed == ()
    assert capfd.readouterr() == ("", "")


async def test_a_backup_returns_what_became_of_each_domain(site, path, libvirt, capfd):
    config = site.configure(all={"hosts": ["fake", "gone"], "packager": "directory"})
    libvirt.hypervisor = FakeHypervisor(
        DescribedDomain({"vda": site.root / "image.raw"}, active=False)
    )
    told = []
    async with open_virtbackup(config, on_event=told.append) as vb:
        run = await vb.backup(["all"])
    assert run == BackupRun(of(told, events.BackupDone), of(told, events.BackupFailed))
    assert [done.domain for done in run.done] == ["fake"]
    assert [failed.domain for failed in run.failed] == ["gone"]
    assert not run.ok
    assert capfd.readouterr() == ("", "")


async def test_nothing_to_back_up_is_an_error_unless_it_is_allowed(site, path, libvirt):
    async with open_virtbackup(path) as vb:
        with pytest.raises(BackupsFailedError):
            await vb.backup()
        assert (await vb.backup(allow_empty=True)).ok


async def test_one_connection_is_for_all_methods(site, path, libvirt):
    async with open_virtbackup(path) as vb:
        await vb.list()
        assert libvirt.opened == 0
        await vb.list(with_known=True)
        await vb.doctor()
        assert libvirt.opened == 1
        assert libvirt.hypervisor.reconnects == 1  # a broken one would be opened again


async def test_a_connection_that_failed_is_tried_again_by_the_next_method(site, path, libvirt):
    libvirt.refuses = 1
    async with open_virtbackup(path) as vb:
        found = await vb.doctor()
        assert [finding.message for finding in found if finding.check == "libvirt"] == [
            "libvirt does not answer"
        ]
        assert (await vb.list(with_known=True)).without_backup == ()
    assert libvirt.opened == 1


async def test_a_connection_that_cannot_be_opened_again_fails_those_alone_that_need_it(
    site, path, libvirt, monkeypatch
):
    async with open_virtbackup(path) as vb:
        await vb.list(with_known=True)

        async def lost():
            raise ConnectionFailedError("libvirt has gone")

        monkeypatch.setattr(libvirt.hypervisor, "reconnect", lost)
        assert (await vb.verify(quick=True)).ok
        with pytest.raises(ConnectionFailedError, match="has gone"):
            await vb.list(with_known=True)
        monkeypatch.undo()
        await vb.list(with_known=True)


async def test_after_the_block_nothing_can_be_asked(site, path):
    async with open_virtbackup(path) as vb:
        assert vb.config.path == path
    with pytest.raises(RuntimeError, match="closed"):
        await vb.list()


async def test_warnings_of_the_configuration_are_events(site, path):
    path.write_text(path.read_text() + "progress: false\n")
    told = []
    async with open_virtbackup(str(path), on_event=told.append):
        warned = of(told, events.Warned)
    assert warned
    assert [event.message for event in warned] == list(load_config(path).warnings)


async def test_a_configuration_that_is_wrong_raises_its_error(tmp_path):
    with pytest.raises(ConfigError):
        async with open_virtbackup(tmp_path / "none.yml"):
            pass
    assert issubclass(ConfigError, VirtBackupError)
