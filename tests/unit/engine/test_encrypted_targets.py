"""A group that is encrypted: its first backup, its key, and who finds what without it."""

import json
import subprocess
import sys

import pytest

from fakes.hypervisor import DescribedDomain
from fakes.site import Site
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.doctor.examination import DoctorRequest, run_doctor
from virtbackup_async.engine.inventory.chosen_backup import FindRequest, find_backup_to_read
from virtbackup_async.engine.inventory.listing import ListRequest, run_list
from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup
from virtbackup_async.engine.survey.survey import survey
from virtbackup_async.errors import ConfigError, StorageError
from virtbackup_async.events import BackupDone, BackupFailed, TargetSpace
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.repository import (
    key_of_file,
    key_of_passphrase,
    make_repository,
    open_key_changes,
)
from virtbackup_async.repository.keys import slots
from virtbackup_async.repository.storage.key_file import make_key_file

IMAGE = b"\0" * 65536 + bytes(range(256)) * 2048


class EncryptedSite(Site):
    """A host whose one group is encrypted, into a directory."""

    def __init__(self, root):
        self.image = root / "vda.raw"
        self.image.write_bytes(IMAGE)
        self.key_file = root / "backups.key"
        super().__init__(
            root,
            DescribedDomain({"vda": self.image}),
            packager="repository",
            method="snapshot",
            encryption={"key_file": str(self.key_file)},
        )

    def tree(self):
        """All files of the target, by path."""
        return {path: path.read_bytes() for path in self.target.rglob("*") if path.is_file()}


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(tmp_path / "state"))
    return EncryptedSite(tmp_path)


async def restored(site, place):
    found = await find_backup_to_read(site.runtime(), FindRequest("all", "fake", None))
    await restore_backup(site.runtime(), RestoreRequest(found.definition, found.path.parent, place))
    (image,) = place.glob("*.raw")
    return image.read_bytes()


async def test_the_first_backup_makes_the_key_and_says_so_once(site, tmp_path):
    listing = await run_list(site.runtime(), ListRequest())
    assert listing.backups == ()
    assert not site.key_file.exists()
    first = await site.back_up()
    assert isinstance(first, BackupDone), first
    (warning,) = site.warnings()
    assert str(site.key_file) in warning
    assert "virtbackup key paper all" in warning
    assert site.of(TargetSpace)
    second = await site.back_up()
    assert isinstance(second, BackupDone), second
    assert site.warnings() == []
    listing = await run_list(site.runtime(), ListRequest())
    assert [one.backup for one in listing.backups] == [first.backup, second.backup]
    assert await site.verify() == [first.backup, second.backup]
    assert await restored(site, tmp_path / "restored") == IMAGE


async def test_a_hook_may_mount_the_target(site, tmp_path):
    """Before that, another directory has its path: no repository is made in it, and no key."""
    site.target.rename(tmp_path / "disk")
    site.target.mkdir()
    swap = f"rmdir {site.target} && mv {tmp_path / 'disk'} {site.target}"
    done = await site.back_up(hooks={"before": f"test ! -e {site.key_file} && {swap}"})
    assert isinstance(done, BackupDone), done


async def test_a_key_that_does_not_fit_is_told_to_the_hooks(site, tmp_path):
    await site.back_up()
    site.key_file.unlink()
    make_key_file(site.key_file)
    failed = tmp_path / "failed"
    with pytest.raises(ConfigError):
        await site.back_up(hooks={"on_failure": f"touch {failed}"})
    assert failed.exists()


async def test_nothing_in_the_target_tells_what_is_in_it(site):
    done = await site.back_up()
    stored = b"".join(site.tree().values())
    names = [path.relative_to(site.target).as_posix() for path in site.target.rglob("*")]
    for word in ("fake", done.backup, "vda", str(site.image), site.domain.uuid, "<domain", ".json"):
        assert not any(word in name for name in names)
        assert word.encode() not in stored
    secret = site.key_file.read_text().split(":")[-1].strip()
    assert secret.encode() not in stored
    events = json.dumps([repr(event) for event in site.events])
    assert secret not in events


@pytest.mark.parametrize("wrong", ["another key", "others may read it", "missing", "a link"])
async def test_a_key_that_does_not_fit_ends_the_run_at_once(site, tmp_path, wrong):
    await site.back_up()
    before = site.tree()
    if wrong == "others may read it":
        site.key_file.chmod(0o640)
    else:
        site.key_file.rename(tmp_path / "kept")
    if wrong == "another key":
        make_key_file(site.key_file)
    if wrong == "a link":
        site.key_file.symlink_to(tmp_path / "kept")
    with pytest.raises(ConfigError) as error:
        await run_backup(site.runtime(), BackupRequest())
    assert error.value.exit_code == 2
    assert site.of(BackupFailed) == []
    with pytest.raises(ConfigError):
        await run_list(site.runtime(), ListRequest())
    assert site.tree() == before
    assert site.domain.live == {"vda": site.image}


async def test_a_group_and_its_target_must_agree(site):
    make_repository(StorageLocation.of(site.target))
    before = site.tree()
    with pytest.raises(ConfigError, match="not encrypted"):
        await run_backup(site.runtime(), BackupRequest())
    assert site.tree() == before
    assert not site.key_file.exists()


async def test_a_group_without_a_key_refuses_an_encrypted_target(site):
    await site.back_up()
    del site.group["encryption"]
    before = site.tree()
    for work in (run_backup(site.runtime(), BackupRequest()),
                 run_list(site.runtime(), ListRequest())):  # fmt: skip
        with pytest.raises(ConfigError, match="repository is encrypted"):
            await work
    assert site.tree() == before


async def test_a_target_that_is_not_mounted_is_no_empty_one(site):
    site.target.rmdir()
    with pytest.raises(StorageError):
        await run_list(site.runtime(), ListRequest())
    await run_backup(site.runtime(), BackupRequest())
    assert len(site.of(BackupFailed)) == 1
    assert not site.key_file.exists()


async def test_a_target_alone_is_read_with_its_key_file(site, tmp_path):
    done = await site.back_up()

    def run(*words):
        argv = [sys.executable, "-m", "virtbackup_async", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    target = ("--target", str(site.target))
    listed = run("list", *target, "--key-file", str(site.key_file), "--json")
    assert listed.returncode == 0, listed.stderr
    assert done.backup in listed.stdout
    without = run("list", *target)
    assert without.returncode == 2
    assert "--key-file" in without.stderr
    place = tmp_path / "restored"
    ended = run("restore", "fake", str(place), *target, "--key-file", str(site.key_file))
    assert ended.returncode == 0, ended.stderr
    (image,) = place.glob("*.raw")
    assert image.read_bytes() == IMAGE
    alone = run("list", "--key-file", str(site.key_file))
    assert alone.returncode == 2
    assert "--target" in alone.stderr


async def keys_missing(site):
    """What doctor finds of the keys, and what the overview says is to be done about them."""
    found = await run_doctor(site.runtime(), DoctorRequest())
    facts = await survey(site.runtime(), for_page=False)
    actions = [one.command for one in build_overview(facts).actions]
    return (
        [(one.message, one.advice) for one in found if one.code == "no_recovery_key"],
        [command for command in actions if "paper" in command],
    )


async def test_a_host_with_the_only_key_is_warned_of_its_own_death(site):
    assert await keys_missing(site) == ([], [])
    await site.back_up()
    location = site.configure().groups["all"].target
    ((message, advice),), (command,) = await keys_missing(site)
    assert "only key files open the backups" in message
    assert "virtbackup key paper all" in advice
    assert command[-3:] == ("key", "paper", "all")
    changes = open_key_changes(location, key_of_file(site.key_file))
    changes.add(key_of_passphrase("long enough"), "admin", slots.Cost(1, 1, 64))
    ((message, _),), _ = await keys_missing(site)
    assert "the last key file or passphrase" in message
    changes.add_recovery("paper")
    assert await keys_missing(site) == ([], [])


async def test_copies_are_asked_for_their_recovery_key(site, tmp_path):
    copies = tmp_path / "copies"
    copies.mkdir()
    encryption = {"key_file": str(tmp_path / "copies.key")}
    other = {"target": str(copies), "packager": "repository", "encryption": encryption}
    config = site.configure(all={"hosts": ["fake"], "copies": ["offsite"], **site.group},
                            offsite={"hosts": ["none"], **other})  # fmt: skip
    make_repository(config.groups["offsite"].target)
    found = await run_doctor(site.runtime(config), DoctorRequest(["all"]))
    (lack,) = [one for one in found if one.code == "no_recovery_key"]
    assert (lack.subject, "key paper offsite" in lack.advice) == (str(copies), True)
