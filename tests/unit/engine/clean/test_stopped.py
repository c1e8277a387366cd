"""`clean` and a guest that ransomware encrypts: real backups of a disk that is really rewritten."""

from datetime import timedelta
from random import Random

import pytest

from fakes.hypervisor import DescribedDomain
from fakes.site import NOW, Site
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.doctor.examination import DoctorRequest, run_doctor
from virtbackup_async.engine.survey.survey import survey
from virtbackup_async.errors import ConfigError, NotFoundError
from virtbackup_async.events import BackupRemoved, ChangeAccepted, CleanStopped, CleanVerdict
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.reporting.outcome import RunOutcome
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.reporting.sentences import in_words
from virtbackup_async.reporting.status import status_of

MIB = 1 << 20
DATA_MIB = 72
RULES = {"keep_last": 3, "hourly": 0, "daily": 0, "weekly": 0, "monthly": 0, "yearly": 0}


def text(random, length):
    """Data that can be compressed to about a half."""
    return random.randbytes(length // 2).hex().encode()


class Guest(Site):
    """A shut-off guest with one disk; each night it changes in some way and is backed up."""

    def __init__(self, root, **group):
        super().__init__(root, **{"packager": "repository", **RULES, **group})
        self.random = Random(11)
        self.image = root / "vda.raw"
        with self.image.open("wb") as file:
            for _ in range(DATA_MIB):
                file.write(text(self.random, MIB))
        self.domains = (DescribedDomain({"vda": self.image}, active=False),)
        self.now = NOW

    def write(self, content):
        """Overwrite a part of the disk."""
        with self.image.open("r+b") as file:
            file.seek(self.random.randrange(DATA_MIB * MIB - len(content)) & ~0xFFFF)
            file.write(content)

    async def night(self, change=b""):
        """Change the guest, and back it up a day later; return the backup's name."""
        self.write(change or text(self.random, MIB))
        self.now += timedelta(days=1)
        run = await run_backup(self.runtime(now=lambda: self.now), BackupRequest())
        (done,) = run.done
        return done.backup

    async def clean(self, *groups, **request):
        await run_clean(self.runtime(now=lambda: self.now), CleanRequest(groups, **request))
        return sorted(event.backup for event in self.of(BackupRemoved))

    async def listed(self):
        scan = await Catalog(StorageLocation.of(self.target)).scan()
        return [found.definition.name for found in scan.complete]

    def encrypt(self):
        """Rewrite the whole disk with data that cannot be compressed."""
        return self.random.randbytes(DATA_MIB * MIB - (1 << 16) + 1)[: DATA_MIB * MIB - (1 << 16)]


@pytest.fixture
def guest(tmp_path):
    return Guest(tmp_path)


async def test_nothing_from_before_is_removed_until_it_is_accepted(guest):
    before = [await guest.night() for _ in range(3)]
    attacked = await guest.night(guest.encrypt())
    after = [await guest.night() for _ in range(4)]
    assert await guest.clean() == after[:1]
    (stopped,) = guest.of(CleanStopped)
    assert (stopped.domain, stopped.backup, stopped.kept) == ("fake", attacked, 4)
    assert (stopped.error_code, stopped.exit_code) == ("unusual_change", 3)
    assert "can no longer be compressed, as if it were encrypted" in stopped.reason
    words = in_words(stopped)
    assert words is not None
    assert "\n" not in words
    assert words.startswith(f"fake: STOPPED: in backup {attacked}, ")
    assert await guest.listed() == [*before, attacked, *after[1:]]

    removed = await guest.clean(accepted=[f"fake@{attacked}"])
    assert [event.backup for event in guest.of(ChangeAccepted)] == [attacked]
    assert removed == [*before, attacked]
    assert not guest.of(CleanStopped)


async def test_what_was_accepted_is_not_asked_again(guest):
    for _ in range(3):
        await guest.night()
    attacked = await guest.night(guest.encrypt())
    await guest.clean(accepted=[f"fake@{attacked}"])
    await guest.night()
    await guest.clean()
    assert not guest.of(CleanStopped)
    assert len(await guest.listed()) == 3


async def test_a_normal_upgrade_and_a_first_backup_stop_nothing(guest):
    nights = [await guest.night()]
    await guest.clean()
    assert not guest.of(CleanStopped)
    nights += [await guest.night() for _ in range(3)]
    upgraded = text(guest.random, 12 * MIB) + guest.random.randbytes(3 * MIB)
    nights.append(await guest.night(upgraded))
    await guest.clean()
    assert await guest.listed() == nights[-3:]
    assert not guest.of(CleanStopped)


async def test_everything_that_an_admin_looks_at_shows_it(guest):
    names = [await guest.night() for _ in range(3)]
    attacked = await guest.night(guest.encrypt())

    await guest.clean(dry_run=True)
    assert all(verdict.keep for verdict in guest.of(CleanVerdict))
    assert await guest.listed() == [*names, attacked]

    outcome = RunOutcome(lambda _event: None)
    for event in guest.events:
        outcome.emit(event)
    summary = outcome.summary([], None)
    assert (summary.exit_code, summary.error_code) == (3, "unusual_change")
    assert summary.failed == ("fake",)
    assert f"fake ({attacked})" in (summary.error or "")
    assert f"--accept=fake@{attacked}" in (summary.advice or "")

    findings = await run_doctor(guest.runtime(now=lambda: guest.now), DoctorRequest())
    (found,) = [finding for finding in findings if finding.code == "unusual_change"]
    assert (found.level, found.subject) == ("problem", "fake")
    assert attacked in found.message
    assert "--accept" in (found.advice or "")
    overview = build_overview(await survey(guest.runtime(now=lambda: guest.now)))
    (line,) = overview.guests
    assert line.standing.name == "LOOK"
    assert line.reasons[0].startswith(f"in backup {attacked}, ")
    (action,) = [one for one in overview.actions if "attacked" in one.text]
    assert action.command[-1] == f"--accept=fake@{attacked}"
    (unusual,) = status_of(overview).unusual
    assert unusual.startswith(f"fake: in backup {attacked}, ")


async def test_a_compressed_package_shows_it_too(tmp_path):
    guest = Guest(tmp_path, packager="zstd")
    names = [await guest.night() for _ in range(3)]
    attacked = await guest.night(guest.encrypt())
    assert not await guest.clean()
    (stopped,) = guest.of(CleanStopped)
    assert (stopped.backup, stopped.kept) == (attacked, len(names) - 2)


async def test_only_a_backup_with_its_date_is_accepted(guest):
    await guest.night()
    with pytest.raises(ConfigError, match="which of its backups"):
        await guest.clean(accepted=["fake"])
    with pytest.raises(NotFoundError):
        await guest.clean(accepted=["fake@2001-01-01"])
