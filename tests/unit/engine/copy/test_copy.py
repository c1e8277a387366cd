"""Copies between targets of every packager: what arrives is what was backed up."""

import os
from datetime import datetime

import pytest
from anyio import CancelScope, create_task_group
from msgspec.structs import replace

from fakes.copy_site import CopySite
from fakes.site import DAY_S
from fakes.stored_backup import DATA_BYTES, DATE, MIB, StoredBackup
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.errors import ConfigError, NotFoundError, StorageError
from virtbackup_async.events import (
    BackupsExpected,
    CopyDone,
    CopyFailed,
    CopySkipped,
    CopyStarted,
    DiskProgress,
    ExpectedDisk,
    RunStarted,
)
from virtbackup_async.model.backup import CopiedFrom, Packager, Verification
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.model.tracking import Reading
from virtbackup_async.repository import find_repository
from virtbackup_async.version import __version__

PACKAGERS = [
    Packager("directory"),
    Packager("tar"),
    Packager("tar", {"compression": "gz"}),
    Packager("zstd"),
    Packager("repository"),
]
NAMES = [one.opts.get("compression", one.type) for one in PACKAGERS]
LATER = datetime.fromtimestamp(DATE + 20 * DAY_S).astimezone()


@pytest.fixture
def site(tmp_path):
    return CopySite(tmp_path)


def groups(site, packager):
    opts = {"packager_opts": packager.opts} if packager.opts else {}
    return {
        "all": {"hosts": ["r:.*"], **site.group},
        "away": {"target": str(site.other), "packager": packager.type, **opts},
    }


@pytest.mark.parametrize("source", PACKAGERS, ids=NAMES)
@pytest.mark.parametrize("destination", PACKAGERS, ids=NAMES)
async def test_a_copy_is_the_backup_whatever_packs_it(site, source, destination):
    stored = await site.store(source)
    config = site.configure(**groups(site, destination))
    run = await site.copy(to="away", config=config)
    (done,) = run.done
    assert run.ok
    copied = site.copied(stored)
    assert await site.content(copied) == (site.root / "image.raw").read_bytes()
    assert copied.packager == destination
    was = stored.definition.records["vda"].image
    image = copied.records["vda"].image
    assert replace(image, stored_bytes=was.stored_bytes) == was
    assert (done.data_bytes, done.stored_bytes) == (DATA_BYTES, image.stored_bytes)
    assert (done.read_bytes, done.skipped_bytes) == (DATA_BYTES, 0)
    assert done.definition == str(site.other / "web" / stored.path.name)
    assert await site.listed() == [stored.name]
    assert not [name for name in site.left_over() if name.endswith(".pending")]
    again = await site.copy(to="away", config=config)
    assert [skipped.reason for skipped in again.skipped] == ["it is there already"]
    assert not again.done
    assert again.ok


async def test_what_is_known_of_the_backup_stays_known(site):
    variables = site.root / "web.fd"
    variables.write_bytes(os.urandom(5000))
    stored = StoredBackup(site.target, Packager("repository"))
    await stored.make(site.root / "image.raw", variables)
    record = stored.definition.records["vda"]
    reading = Reading(
        "virtbackup-x", "20260201-021500_3_web", None, DATE, 5, checkpoint_of="x", changed=()
    )
    await Catalog(StorageLocation.of(site.target)).write_definition(
        replace(
            stored.definition,
            records={"vda": replace(record, reading=reading)},
            note="before the upgrade",
            pinned=True,
            quiesced=True,
            skipped={"vdb": "it is a host device"},
            verified=Verification(DATE, ok=True, digests=True),
        )
    )
    await site.copy()
    copied = site.copied(stored)
    assert (copied.note, copied.pinned, copied.quiesced) == ("before the upgrade", True, True)
    assert (copied.name, copied.date, copied.domain_id) == (stored.name, DATE, 3)
    assert copied.skipped == {"vdb": "it is a host device"}
    assert copied.verified is None
    assert copied.version == __version__
    assert copied.records["vda"].reading == replace(
        reading, checkpoint=None, checkpoint_of=None, changed=None
    )
    assert copied.records["vda"].original.format == "qcow2"
    (state,) = copied.state_files
    assert (state.kind, state.owner, state.image.source) == ("nvram", "qemu", str(variables))
    assert await site.content(copied, state.image.file) == variables.read_bytes()
    id_ = find_repository(StorageLocation.of(site.target)).id.hex()
    assert copied.copied_from == CopiedFrom(str(site.target), id_, copied.copied_from.date)
    assert copied.copied_from.date > DATE


async def test_a_copy_of_a_copy_names_the_first_target(site):
    stored = await site.store()
    await site.copy()
    third = site.root / "third"
    third.mkdir()
    config = site.configure(away={"target": str(site.other), "hosts": ["r:.*"]})
    await site.copy(to=third, config=config)
    path = third / "web" / stored.path.name
    definition = await Catalog(StorageLocation.of(third)).read_definition(TargetFile.of(path))
    assert definition.copied_from.target == str(site.target)
    assert definition.copied_from.repository is None


async def test_events_of_a_copy(site):
    stored = await site.store()
    await site.copy(packager="directory")
    target = str(site.other)
    assert site.events[0] == RunStarted("copy", ("web",))
    (expected,) = site.of(BackupsExpected)[0].backups
    assert (expected.group, expected.backup, expected.target) == ("all", stored.name, target)
    assert expected.disks == (ExpectedDisk("vda", DATA_BYTES),)
    assert site.of(CopyStarted) == [CopyStarted("all", "web", stored.name, target, ("vda",))]
    assert site.of(DiskProgress)[-1].done_bytes == DATA_BYTES
    assert isinstance(site.events[-1], CopyDone)


async def test_only_what_the_repository_lacks_is_read(site):
    repository = Packager("repository")
    (site.root / "image.raw").write_bytes(os.urandom(MIB) + bytes(MIB) + os.urandom(MIB))
    await site.store(repository)
    (done,) = (await site.copy()).done
    assert (done.read_bytes, done.skipped_bytes) == (2 * MIB, 0)
    with (site.root / "image.raw").open("r+b") as image:
        image.write(os.urandom(MIB // 4))
    later = await site.store(repository, date=DATE + DAY_S)
    run = await site.copy()
    (done,) = run.done
    assert (done.backup, done.read_bytes, done.skipped_bytes) == (
        later.name,
        MIB // 4,
        7 * MIB // 4,
    )
    assert MIB // 4 < done.stored_bytes < MIB // 2
    assert await site.content(site.copied(later)) == (site.root / "image.raw").read_bytes()


@pytest.mark.parametrize("source", PACKAGERS, ids=NAMES)
@pytest.mark.parametrize("destination", ["directory", "repository"])
async def test_damage_is_never_copied(site, source, destination):
    stored = await site.store(source)
    (site.root / "image.raw").write_bytes(os.urandom(MIB))
    later = await site.store(source, date=DATE + DAY_S)
    if source.type == "repository":
        first = min(
            (site.target / ".virtbackup-repository" / "packs").rglob("*.pack"),
            key=lambda path: path.stat().st_mtime_ns,
        )
        data = bytearray(first.read_bytes())
        data[len(data) // 2] ^= 1
        first.write_bytes(data)
    else:
        stored.flip(0.8)
    run = await site.copy(packager=destination)
    (failed,) = run.failed
    assert (failed.backup, failed.exit_code, failed.left_pending) == (stored.name, 13, False)
    assert [done.backup for done in run.done] == [later.name]
    assert await site.listed() == [later.name]
    assert not [name for name in site.left_over() if name.startswith(stored.name)]


async def test_a_broken_backup_is_reported_and_the_others_are_copied(site):
    stored = await site.store()
    later = await site.store(date=DATE + DAY_S)
    stored.package.unlink()
    run = await site.copy()
    assert [(failed.backup, failed.exit_code) for failed in run.failed] == [(stored.name, 13)]
    assert [done.backup for done in run.done] == [later.name]


async def test_another_backup_of_that_name_is_not_replaced(site):
    stored = await site.store()
    await site.copy(packager="directory")
    there = site.other / "web" / stored.path.name
    before = there.read_bytes()
    (site.root / "image.raw").write_bytes(os.urandom(MIB))
    stored.package.unlink()
    await site.store()
    run = await site.copy()
    (failed,) = run.failed
    assert "another backup has its name" in failed.error
    assert failed.exit_code == 22
    assert there.read_bytes() == before


async def test_a_damaged_copy_is_not_taken_for_good(site):
    stored = await site.store()
    await site.copy(packager="directory")
    copied = site.copied(stored)
    bad = Verification(DATE, ok=False, digests=True, error="cut off")
    await Catalog(StorageLocation.of(site.other)).write_definition(replace(copied, verified=bad))
    run = await site.copy()
    (failed,) = run.failed
    assert failed.exit_code == 13
    assert "forget" in failed.advice


async def test_names_dates_and_the_newest_select(site):
    first = await site.store()
    second = await site.store(date=DATE + DAY_S)
    other = await site.store(domain="db")
    run = await site.copy("web", dry_run=True)
    assert [one.backup for one in run.planned] == [first.name, second.name]
    assert run.planned[0].data_bytes == DATA_BYTES
    run = await site.copy(latest=True, dry_run=True)
    assert {one.backup for one in run.planned} == {second.name, other.name}
    run = await site.copy(since="2026-03-02", dry_run=True)
    assert [one.backup for one in run.planned] == [second.name]
    run = await site.copy("web@2026-03-01")
    assert [one.backup for one in run.done] == [first.name]
    assert await site.listed() == [first.name]
    run = await site.copy("web", new=True)
    assert [one.backup for one in run.done] == [second.name]
    run = await site.copy("web", new=True)
    assert (run.done, run.skipped) == ((), ())
    assert site.of(CopySkipped) == []


async def test_nothing_older_than_the_newest_copy_comes_again(site):
    first = await site.store()
    second = await site.store(date=DATE + DAY_S)
    await site.copy(packager="directory")
    for path in (site.other / "web").glob(f"{first.name}*"):
        path.unlink()
    run = await site.copy(new=True)
    assert (run.done, await site.listed()) == ((), [second.name])


async def test_no_backup_at_all_is_an_error(site):
    with pytest.raises(NotFoundError, match="no backup to copy"):
        await site.copy()


async def test_a_target_that_is_missing_is_not_made(site):
    await site.store()
    with pytest.raises(StorageError):
        await site.copy(to=site.root / "not-mounted")
    assert not (site.root / "not-mounted").exists()


async def test_source_and_target_must_be_apart(site):
    await site.store()
    link = site.root / "link"
    link.symlink_to(site.target)
    for same in (site.target, link, "all"):
        with pytest.raises(ConfigError, match="already"):
            await site.copy(to=same)
    inner = site.target / "offsite"
    inner.mkdir()
    for nested in (inner, site.root):
        with pytest.raises(ConfigError, match="lie in each other"):
            await site.copy(to=nested)


async def test_a_bad_request_is_refused(site):
    await site.store()
    with pytest.raises(ConfigError, match="unknown packager"):
        await site.copy(packager="zip")
    with pytest.raises(ConfigError):
        await site.copy(since="lately")
    with pytest.raises(NotFoundError):
        await site.copy(groups=("none",))


async def test_two_at_once_make_one_copy(site):
    stored = await site.store(Packager("repository"))
    other = CopySite(site.root)
    async with create_task_group() as both:
        both.start_soon(site.copy)
        both.start_soon(other.copy)
    assert await site.listed() == [stored.name]
    assert not [*site.of(CopyFailed), *other.of(CopyFailed)]
    assert len(site.of(CopyDone) + other.of(CopyDone)) == 1
    skipped = site.of(CopySkipped) + other.of(CopySkipped)
    assert [one.reason for one in skipped] == ["it is there already"]


@pytest.mark.parametrize("packager", ["directory", "repository"])
async def test_a_copy_that_is_cancelled_leaves_nothing(site, packager):
    stored = await site.store(Packager(packager))
    with CancelScope() as scope:
        site.on[lambda event: isinstance(event, CopyStarted)] = scope.cancel
        await site.copy(packager=packager)
    assert scope.cancelled_caught
    (failed,) = site.of(CopyFailed)
    assert (failed.backup, failed.cancelled, failed.left_pending) == (stored.name, True, False)
    assert site.left_over() == []
    run = await site.copy(packager=packager)
    assert [done.backup for done in run.done] == [stored.name]


async def test_a_target_that_cannot_be_read_stops_no_other(site):
    stored = await site.store()
    config = site.configure(
        all={"hosts": ["r:.*"], **site.group},
        lost={"hosts": ["r:.*"], "target": str(site.root / "not-mounted")},
    )
    with pytest.raises(StorageError, match="not-mounted"):
        await site.copy(config=config)
    assert await site.listed() == [stored.name]
