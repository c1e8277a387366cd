"""The copies that follow a backup: what they take, and that no failure of theirs undoes it."""

from datetime import timedelta
from functools import partial

import pytest

from fakes.copy_site import CopySite
from fakes.hypervisor import DescribedDomain
from fakes.site import NOW
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.copy.after_backup import copy_new_backups
from virtbackup_async.errors import ConfigError
from virtbackup_async.events import BackupDone, CopyDone, CopyFailed
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.reporting.outcome import RunOutcome


class BackedUpSite(CopySite):
    """A host with one shut-off domain, whose backups are copied into the other target."""

    def __init__(self, root):
        super().__init__(root)
        image = root / "vda.raw"
        image.write_bytes(b"x" * 65536)
        self.domains = (DescribedDomain({"vda": image}, active=False),)
        self.copies = [str(self.other)]
        self.nights = 0

    async def night(self, **extra):
        """Make a backup, a day after the one before."""
        groups = {"all": {"hosts": ["r:.*"], **self.group, "copies": self.copies}, **extra}
        config = self.configure(**groups)
        at = NOW + timedelta(days=self.nights)
        self.nights += 1
        runtime = self.runtime(config, now=lambda: at)
        request = BackupRequest(after_each=partial(copy_new_backups, wait_s=60))
        return await run_backup(runtime, request)


@pytest.fixture
def site(tmp_path):
    return BackedUpSite(tmp_path)


async def test_each_new_backup_is_copied(site):
    run = await site.night()
    (done,) = run.done
    (copied,) = run.copied
    assert run.ok
    assert (copied.group, copied.domain, copied.backup) == ("all", "fake", done.backup)
    assert await site.listed() == [done.backup]
    again = await site.night()
    assert [one.backup for one in again.copied] == [again.done[0].backup]


async def test_a_group_as_target_says_how_copies_are_stored(site):
    site.copies = ["away"]
    away = {"target": str(site.other), "packager": "zstd"}
    (done,) = (await site.night(away=away)).done
    directory = site.other / "fake"
    assert sorted(path.suffix for path in directory.iterdir()) == [".json", ".zstd"]
    assert await site.listed() == [done.backup]


async def test_a_missed_night_is_made_up_and_nothing_older(site):
    first = (await site.night()).done[0].backup
    second = (await site.night()).done[0].backup
    site.other.rename(site.root / "away")
    missed = await site.night()
    assert [one.exit_code for one in missed.not_copied] == [22]
    assert not missed.ok
    (site.root / "away").rename(site.other)
    for path in (site.other / "fake").glob(f"{first}*"):
        path.unlink()
    third = await site.night()
    expected = [missed.done[0].backup, third.done[0].backup]
    assert [one.backup for one in third.copied] == expected
    assert await site.listed() == [second, *expected]


async def test_a_copy_that_fails_leaves_the_backup_and_the_other_copies(site):
    (site.root / "third").mkdir()
    site.copies = [str(site.root / "missing"), str(site.target), str(site.root / "third")]
    run = await site.night()
    (done,) = run.done
    assert [(one.target, one.exit_code) for one in run.not_copied] == [
        (str(site.root / "missing"), 22),
        (str(site.target), 2),
    ]
    assert [one.target for one in run.copied] == [str(site.root / "third")]
    assert [
        one.definition.name
        for one in (await Catalog(StorageLocation.of(site.target)).scan()).complete
    ] == [done.backup]
    events = [type(event) for event in site.events]
    assert events.index(BackupDone) < events.index(CopyFailed) < events.index(CopyDone)


async def test_a_failed_copy_makes_the_exit_code(site):
    site.copies = [str(site.root / "missing")]
    await site.night()
    outcome = RunOutcome(lambda _event: None)
    for event in site.events:
        outcome.emit(event)
    summary = outcome.summary([], None)
    assert (summary.exit_code, summary.ok) == (3, False)
    assert summary.error == "1 of 1 copies failed"
    assert summary.done == ("fake",)


@pytest.mark.parametrize("word", ["offsite", "relative/path"])
async def test_a_typo_in_copies_is_an_error_of_the_configuration(site, word):
    site.copies = [word]
    with pytest.raises(ConfigError, match="neither a group nor an absolute path"):
        await site.night()


async def test_no_credentials_stand_in_copies(site):
    site.copies = ["s3://user:secret@bucket"]
    with pytest.raises(ConfigError) as raised:
        await site.night()
    assert "secret@" not in str(raised.value)


async def test_a_group_that_inherits_copies_is_no_target_of_its_own(site):
    site.copies = ["all", str(site.other)]
    run = await site.night()
    assert run.ok
    assert [one.target for one in run.copied] == [str(site.other)]
