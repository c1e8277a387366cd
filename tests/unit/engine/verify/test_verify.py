"""verify.py with real packages: every damage is found, and kept where list shows it."""

import errno
import json
import os
from datetime import datetime

import pytest
from msgspec.structs import replace

from fakes.failing_calls import failing
from fakes.site import DAY_S, DIRECTORY, NOW, Site
from fakes.stored_backup import DATA_BYTES, DATE, MIB
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.inventory.listing import list_backups
from virtbackup_async.errors import ConfigError, NotFoundError, StorageError
from virtbackup_async.events import (
    DiskProgress,
    ExpectedDisk,
    RunStarted,
    VerifyDone,
    VerifyFailed,
    VerifyStarted,
    Warned,
)
from virtbackup_async.model import read_share
from virtbackup_async.model.backup import Packager, StateRecord, Verification
from virtbackup_async.model.storage_location import StorageLocation

PACKAGERS = [
    Packager("directory"),
    Packager("tar"),
    *(Packager("tar", {"compression": compression}) for compression in ("gz", "bz2", "xz")),
    Packager("zstd"),
]
each_packager = pytest.mark.parametrize(
    "packager", PACKAGERS, ids=lambda one: one.opts.get("compression", one.type)
)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@each_packager
async def test_good_backup_is_verified_and_that_is_kept(site, packager):
    stored = await site.store(packager)
    assert await site.verify() == [stored.name]
    assert site.events[0] == RunStarted("verify", ("web",))
    (expected,) = site.events[1].backups
    assert (expected.group, expected.domain, expected.backup) == ("all", "web", stored.name)
    assert expected.disks == (ExpectedDisk("vda", DATA_BYTES),)
    assert site.of(VerifyStarted) == [VerifyStarted("all", "web", stored.name, ("vda",))]
    (done,) = site.of(VerifyDone)
    assert done.digests
    assert done.data_bytes == DATA_BYTES
    assert site.of(DiskProgress)[-1].done_bytes == DATA_BYTES
    assert stored.read().verified == Verification(int(NOW.timestamp()), ok=True, digests=True)
    (listing,) = await list_backups(site.configure(), (), (), known_domains=None)
    assert listing.backups_by_domain["web"][0].verified is True
    assert listing.backups_by_domain["web"][0].verified_date == NOW.isoformat()


@each_packager
@pytest.mark.parametrize("damage", ["flip", "cut"])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
async def test_damage_is_found_and_the_others_are_verified(site, packager, damage, share):
    stored = await site.store(packager)
    later = await site.store(packager, date=DATE + 60)
    getattr(stored, damage)(share)
    assert await site.verify() == [later.name]
    (failed,) = site.of(VerifyFailed)
    assert (failed.backup, failed.exit_code) == (stored.name, 13)
    verified = stored.read().verified
    assert not verified.ok
    assert verified.error == failed.error
    assert stored.name in failed.error
    assert later.read().verified.ok


@pytest.mark.parametrize("digest", [None, "blake3-256k:00"])
async def test_state_of_the_domain_is_read_back_too(site, digest):
    stored = await site.store()
    image = stored.definition.records["vda"].image
    variables = replace(image, source="/n/web.fd", digest=digest or image.digest)
    definition = replace(stored.definition, state_files=(StateRecord("nvram", variables),))
    await Catalog(StorageLocation.of(site.target)).write_definition(definition)
    assert await site.verify() == ([] if digest else [stored.name])
    if digest:
        assert "its data is not what was backed up" in stored.read().verified.error
    else:
        assert site.of(VerifyDone)[0].data_bytes == 2 * DATA_BYTES
    assert stored.read().state_files == definition.state_files


async def test_length_that_is_not_the_recorded_one_is_damage(site):
    stored = await site.store()
    with stored.package.open("ab") as file:
        file.truncate(4 * MIB)
    assert await site.verify() == []
    assert (
        "in the package is 4.0 MiB long, 2.8 MiB more than was recorded"
        in stored.read().verified.error
    )


@each_packager
async def test_backup_of_virt_backup_is_readable_without_digest(site, packager):
    stored = await site.store(packager)
    raw = json.loads(stored.path.read_text())
    old = {key: raw[key] for key in raw if key not in {"images", "uuid", "state", "checksum"}}
    stored.path.write_text(json.dumps({**old, "version": "0.5.6"}))
    assert await site.verify() == [stored.name]
    assert not site.of(VerifyDone)[0].digests
    assert stored.read().verified == Verification(int(NOW.timestamp()), ok=True, digests=False)
    assert json.loads(stored.path.read_text())["version"] == "0.5.6"


@each_packager
async def test_quick_looks_at_lengths_alone(site, packager):
    stored = await site.store(packager)
    stored.flip()
    assert await site.verify(quick=True) == [stored.name]
    (done,) = site.of(VerifyDone)
    assert (done.quick, done.digests, done.data_bytes) == (True, False, DATA_BYTES)
    assert stored.read().verified is None
    assert site.of(DiskProgress) == []
    stored.cut(0.9)
    assert await site.verify(quick=True) == []
    (failed,) = site.of(VerifyFailed)
    assert (failed.exit_code, "cut off" in failed.error) == (13, True)
    assert stored.read().verified.ok is False
    stored.package.unlink()
    stored.package.symlink_to(site.root / "image.raw")
    assert await site.verify(quick=True) == []


async def test_damaged_definition_and_missing_package_fail(site):
    good, bad, gone = [await site.store(date=DATE + second) for second in range(3)]
    bad.path.write_text("{")
    gone.package.unlink()
    assert await site.verify() == [good.name]
    failed = {event.backup: event for event in site.of(VerifyFailed)}
    assert set(failed) == {bad.name, gone.name}
    assert "data missing" in failed[gone.name].error
    assert {event.exit_code for event in failed.values()} == {13}


async def test_backup_that_is_removed_meanwhile_is_no_damage(site):
    stored = await site.store()

    class Clean(list):
        def append(self, event):
            super().append(event)
            if isinstance(event, VerifyStarted):
                stored.path.unlink()
                stored.package.unlink()

    site.events = Clean()
    assert await site.verify() == []
    assert not site.of(VerifyFailed)
    assert [event.message for event in site.of(Warned)] == [
        f"{stored.name} was removed while it was read"
    ]
    assert list(stored.directory.iterdir()) == []


async def test_groups_and_domains_choose(site):
    web, db = await site.store(domain="web"), await site.store(domain="db")
    config = site.configure(a={"hosts": ["web"]}, b={"hosts": ["r:.*"]})
    assert await site.verify(config=config) == sorted([web.name, db.name])
    assert {event.backup: event.group for event in site.of(VerifyDone)} == {
        web.name: "a",
        db.name: "b",
    }
    assert await site.verify(config=config, groups=("a",)) == [web.name]
    assert await site.verify(config=config, domains=("r:^d",)) == [db.name]
    with pytest.raises(NotFoundError):
        await site.verify(config=config, groups=("c",))


async def test_domains_and_single_backups_can_be_named(site):
    old, new = [await site.store(date=DATE + days * DAY_S) for days in (0, 1)]
    db = await site.store(domain="db")
    config = site.configure(a={"hosts": ["web"]}, b={"hosts": ["db", "gone"]})
    for words, backups in (
        (("web",), [old, new]),
        (("web@latest",), [new]),
        ((f"web@{old.name}", "db"), [old, db]),
        ((old.name,), [old]),
        (("a", "web"), [old, new]),
        (("b/db",), [db]),
        (("b", "db@latest"), [db]),
        (("a/web@latest", "web@latest"), [new]),
        (("web", "db"), [old, new, db]),
    ):
        found = await site.verify(config=config, groups=words)
        assert sorted(found) == sorted(one.name for one in backups), words
    with pytest.raises(NotFoundError, match="did you mean 'web'"):
        await site.verify(config=config, groups=("wep",))
    with pytest.raises(NotFoundError, match="no backup of web at 2001-01"):
        await site.verify(config=config, groups=("web@2001-01",))
    with pytest.raises(NotFoundError, match="there is no backup to verify"):
        await site.verify(config=config, groups=("gone",))
    new.path.write_text("{")
    assert await site.verify(config=config, groups=("web@latest",)) == []
    assert [failed.backup for failed in site.of(VerifyFailed)] == [new.name]


async def test_newer_than_takes_an_age_or_a_date(site):
    names = [(await site.store(date=DATE + days * DAY_S)).name for days in (0, 4, 9)]
    assert await site.verify(newer_than="7d") == names[1:]
    assert await site.verify(newer_than="36h") == names[2:]
    assert await site.verify(newer_than="2026-03-05") == names[1:]


async def test_recently_verified_backups_are_passed_over_but_not_damaged_ones(site):
    good, bad = [await site.store(date=DATE + second) for second in range(2)]
    bad.flip()
    assert await site.verify() == [good.name]
    assert await site.verify(not_verified_since="1d") == []
    assert await site.verify(not_verified_since="2026-03-01") == []
    assert [event.backup for event in site.of(VerifyFailed)] == [bad.name]
    later = datetime.fromtimestamp(NOW.timestamp() + 2 * DAY_S).astimezone()
    assert await site.verify(now=later, not_verified_since="1d") == [good.name]


async def test_sample_is_drawn_from_what_the_filters_leave(site):
    names = [(await site.store(date=DATE + days * DAY_S)).name for days in range(6)]
    drawn = await site.verify(sample="50%", newer_than="2026-03-03")
    assert len(drawn) == 2
    assert set(drawn) < set(names[2:])
    assert await site.verify(sample="50%", newer_than="2026-03-03") == drawn


@pytest.mark.parametrize(
    "wrong", [{"sample": "half"}, {"newer_than": "soon"}, {"not_verified_since": "soon"}]
)
async def test_what_cannot_be_understood_is_refused_before_anything_is_read(site, wrong):
    await site.store()
    with pytest.raises(ConfigError):
        await site.verify(**wrong)
    assert site.events == []


async def test_target_that_cannot_be_read_does_not_hide_the_others(site):
    stored = await site.store()
    gone = {"target": str(site.root / "gone"), "hosts": ["r:.*"]}
    with pytest.raises(StorageError, match="gone"):
        await site.verify(config=site.configure(a=gone, b={"hosts": ["r:.*"]}))
    assert [event.backup for event in site.of(VerifyDone)] == [stored.name]


@pytest.mark.parametrize("source", ["../../etc/passwd", "/etc/../etc/shadow", "a\0b"])
async def test_hostile_names_lead_nowhere(site, source):
    stored = await site.store()
    raw = json.loads(stored.path.read_text())
    raw["images"]["vda"]["source"] = source
    stored.rewrite(json.dumps(raw))
    assert await site.verify() == [stored.name]


async def test_symlink_in_the_place_of_a_package_is_damage(site):
    stored = await site.store()
    stored.package.unlink()
    stored.package.symlink_to(site.root / "image.raw")
    assert await site.verify() == []
    assert site.of(VerifyFailed)[0].exit_code == 13


@pytest.mark.parametrize("packager", [Packager("zstd"), Packager("tar", {"compression": "gz"})])
async def test_verdict_does_not_change_with_the_way_of_looking(site, packager):
    """What stands behind the last byte of data is cut off: all of it can still be read."""
    stored = await site.store(packager)
    size = stored.package.stat().st_size
    os.truncate(stored.package, size - 4)
    verdicts = [await site.verify(quick=quick) for quick in (True, False, True, False)]
    assert all(verdict == verdicts[0] for verdict in verdicts)
    if packager.type == "zstd":
        assert verdicts[0] == [], "as long as was recorded is what --quick looks at"


async def test_nothing_to_verify_is_not_all_is_good(site):
    with pytest.raises(NotFoundError, match="no backup to verify"):
        await site.verify()
    stored = await site.store()
    with pytest.raises(NotFoundError, match=r"no backup of wbe.*did you mean 'web'"):
        await site.verify(domains=("wbe",))
    assert await site.verify(newer_than="1d") == [], "none was chosen, as was asked for"
    assert await site.verify() == [stored.name]


async def test_backup_without_disks_is_none(site):
    stored = await site.store()
    raw = json.loads(stored.path.read_text())
    stored.rewrite(json.dumps(raw | {"disks": {}, "images": {}}))
    assert await site.verify() == []
    assert "holds no disk" in site.of(VerifyFailed)[0].error


async def test_verify_tells_what_a_backup_lacks(site):
    stored = await site.store()
    raw = json.loads(stored.path.read_text())
    stored.rewrite(json.dumps(raw | {"skipped": {"vdb": "a block disk", "sda": "a cdrom"}}))
    assert await site.verify() == [stored.name]
    assert site.of(VerifyDone)[0].lacks == ("vdb",)


@pytest.mark.parametrize("packager", [DIRECTORY, Packager("tar"), Packager("zstd")])
@pytest.mark.parametrize(("name", "ways"), [("stat", (True, False)), ("open", (False,))])
async def test_what_cannot_be_read_now_is_not_noted_as_damaged(site, packager, name, ways):
    """`clean` counts no damaged backup: an error of the network must not make one."""
    stored = await site.store(packager)
    for quick in ways:
        with failing(name, lambda path: path == stored.package, errno.ESTALE) as failed:
            assert await site.verify(quick=quick) == []
        assert failed
        (refused,) = site.of(VerifyFailed)
        assert refused.exit_code == StorageError.exit_code
        assert stored.read().verified is None
    assert await site.verify() == [stored.name]


async def test_pending_file_that_is_empty_is_no_damaged_backup(site):
    """A program that died in its first moments leaves one."""
    stored = await site.store()
    pending = stored.path.with_name("20260302-021500_3_web.json.pending")
    pending.touch()
    assert await site.verify() == [stored.name]
    assert site.of(VerifyFailed) == []
    (warning,) = site.of(Warned)
    assert str(pending) in warning.message


async def test_of_packages_with_files_of_their_own_whole_ones_are_drawn(site, monkeypatch):
    monkeypatch.setattr(read_share, "LEAST_BYTES", 0)
    stored = [await site.store(PACKAGERS[1], date=DATE + day * DAY_S) for day in range(10)]
    assert await site.verify(read_data="30%") == sorted(one.name for one in stored)
    quick = {event.backup for event in site.of(VerifyDone) if event.quick}
    assert len(quick) == 7
    # The others are verified completely.
    for one in stored:
        assert (one.read().verified is None) == (one.name in quick)


@pytest.mark.parametrize("wrong", ["2", "101%", "much"])
async def test_a_share_that_cannot_be_understood_is_refused(site, wrong):
    await site.store()
    with pytest.raises(ConfigError, match="share of data"):
        await site.verify(read_data=wrong)
