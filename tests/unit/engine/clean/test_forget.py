"""engine/clean/forget.py: single backups go with all of their files, or nothing is touched."""

import fcntl
import json
from datetime import timedelta

import pytest

from fakes.forget_site import ForgetSite, empty, flip_bit, garble, link, lose_data
from fakes.site import NOW
from fakes.stored_backup import DATE
from virtbackup_async.catalog.amendment import amend_definition
from virtbackup_async.errors import ConfigError, DefinitionError, NotFoundError
from virtbackup_async.events import (
    BackupsForgotten,
    CleanVerdict,
    RepositorySwept,
    Warned,
)
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.target_file import TargetFile


@pytest.fixture
def site(tmp_path):
    return ForgetSite(tmp_path)


@pytest.mark.parametrize("packager", ["directory", "tar", "zstd", "repository"])
async def test_a_backup_goes_with_all_of_its_files_and_no_other_does(site, packager):
    first, second, third = await site.store_three(Packager(packager))
    run = await site.forget(second)
    assert [done.backup for done in run.removed] == [second.name]
    assert run.freed_bytes > 0
    assert await site.listed() == [first.name, third.name]
    assert site.files_of(second) == []


async def test_a_repository_gives_back_what_no_other_backup_needs(site):
    old = await site.store_chunks([1, 2, 3, 4], day=0)
    twin = await site.store_chunks([1, 2, 3, 4, 5], day=1)
    new = await site.store_chunks([5], day=2)
    alone = await site.forget(old, dry_run=True)
    both = await site.forget(old, twin, dry_run=True)
    assert both.freed_bytes > alone.freed_bytes
    (said,) = site.of(BackupsForgotten)
    assert (said.backups, said.dry_run) == ((old.name, twin.name), True)
    assert await site.listed() == [old.name, twin.name, new.name]
    packed_bytes = sum(path.stat().st_size for path in site.packs)
    run = await site.forget(old, twin)
    packs_shrank_by = packed_bytes - sum(path.stat().st_size for path in site.packs)
    (swept,) = site.of(RepositorySwept)
    assert swept.freed_bytes >= packs_shrank_by > 0
    of_maps = sum(done.freed_bytes for done in run.removed)
    assert run.freed_bytes == of_maps + swept.freed_bytes - swept.rewritten_bytes
    assert run.freed_bytes >= of_maps + packs_shrank_by
    assert await site.listed() == [new.name]
    await site.verify()


async def test_a_dry_run_gives_the_same_verdicts_and_does_nothing(site):
    first, second, _ = await site.store_three()
    before = site.files()
    planned = await site.forget(first, second, dry_run=True)
    assert site.files() == before
    assert [(each.keep, each.reasons) for each in planned.verdicts] == [(False, ("named",))] * 2
    run = await site.forget(first, second)
    assert run.verdicts == planned.verdicts
    assert run.freed_bytes == planned.freed_bytes > 0


async def test_one_that_is_named_twice_goes_once(site):
    first, _, _ = await site.store_three()
    run = await site.forget(first, first)
    assert len(run.removed) == 1


async def test_a_pinned_backup_needs_unpin_and_nothing_goes_without(site):
    first, second, third = await site.store_three()
    await amend_definition(TargetFile.of(second.path), {"pinned": True})
    with pytest.raises(ConfigError, match=r"nothing was removed: .*\(pinned\)") as refused:
        await site.forget(first, second)
    assert "--unpin" in refused.value.hint
    assert [(v.backup, v.keep) for v in site.of(CleanVerdict)] == [
        (first.name, False), (second.name, True),
    ]  # fmt: skip
    assert len(await site.listed()) == 3
    await site.forget(second, unpin=True)
    assert await site.listed() == [first.name, third.name]


async def test_the_newest_good_backup_needs_consent(site):
    first, second, third = await site.store_three()
    await amend_definition(
        TargetFile.of(third.path),
        {"verified": {"date": DATE, "ok": False, "digests": True, "error": "damaged"}},
    )
    with pytest.raises(ConfigError, match="the newest good backup") as refused:
        await site.forget(second)
    assert "--allow-newest" in refused.value.hint
    await site.forget(third)
    await site.forget(second, allow_newest=True)
    assert await site.listed() == [first.name]


async def test_one_of_the_future_is_not_the_newest_good_one(site):
    (only,) = [await site.store(date=DATE)]
    future = await site.store(date=int((NOW + timedelta(days=9)).timestamp()))
    with pytest.raises(ConfigError, match="the newest good backup"):
        await site.forget(only)
    await site.forget(future)
    assert await site.listed() == [only.name]


async def test_a_domain_alone_means_no_backup(site):
    await site.store_three()
    for name in ("web", "all/web"):
        with pytest.raises(ConfigError, match="which of its backups"):
            await site.forget_names(name, allow_newest=True)
    with pytest.raises(NotFoundError):
        await site.forget_names("web@2020-01-01")
    assert len(await site.listed()) == 3
    for name in ("web@latest", "all/web@2026-03-01"):
        await site.forget_names(name, allow_newest=True)
    assert len(await site.listed()) == 1


async def test_a_backup_that_is_being_read_stays(site):
    first, _, _ = await site.store_three()
    with first.package.open("rb") as package:
        fcntl.flock(package, fcntl.LOCK_SH)
        run = await site.forget(first)
        assert run.not_removed[0].in_use
        assert run.removed == ()
        assert len(await site.listed()) == 3
    await site.forget(first)
    assert len(await site.listed()) == 2


async def test_what_is_not_understood_stays(site):
    first, second, _ = await site.store_three()
    raw = json.loads(first.path.read_text())
    twin = first.path.with_name(f"{first.name[:-3]}twin.json")
    del raw["checksum"]
    twin.write_text(json.dumps({**raw, "version": "0.5.6"}))
    with pytest.raises(ConfigError, match="another backup has the same files"):
        await site.forget(first)
    second.rewrite(json.dumps({**json.loads(second.path.read_text()), "packager": {"type": "x"}}))
    with pytest.raises(ConfigError, match="not understood: packager 'x'"):
        await site.forget(second)


BREAKAGES = [lose_data, garble, empty, flip_bit, link]


@pytest.mark.parametrize("packager", ["directory", "tar", "zstd", "repository"])
@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_a_broken_backup_can_be_forgotten(site, packager, breakage):
    first, second, third = await site.store_three(Packager(packager))
    breakage(second)
    run = await site.forget(second)
    (verdict,) = run.verdicts
    assert (verdict.broken, verdict.backup) == (True, second.name)
    assert site.files_of(second) == []
    assert await site.listed() == [first.name, third.name]
    await site.clean()
    assert not site.of(Warned)
    if breakage is link:
        assert (site.root / "aside.json").exists()


@pytest.mark.parametrize("breakage", [garble, lose_data])
async def test_files_that_another_backup_has_stay(site, breakage):
    """Names that begin alike, and a definition that names the files of another."""
    first, _, _ = await site.store_three()
    longer = first.path.with_name(f"{first.name}_x.json")
    raw = json.loads(first.path.read_text())
    raw |= {"name": f"{first.name}_x", "disks": {"vda": f"{first.name}_x_vda.raw"}, "images": {}}
    first.rewrite(json.dumps(raw))
    first.path.rename(longer)
    for path in (longer.with_name(f"{first.name}_x_vda.raw"), first.path):
        path.write_bytes(b"{")
    unreadable = first.path.with_name(f"{first.name}_y.json")
    unreadable.write_bytes(b"{")
    unreadable.with_name(f"{first.name}_y_vda.raw").write_bytes(b"data")
    await site.forget(first)
    assert site.files_of(first) == [
        f"{first.name}_x.json", f"{first.name}_x_vda.raw",
        f"{first.name}_y.json", f"{first.name}_y_vda.raw",
    ]  # fmt: skip


async def test_a_pin_of_a_broken_backup_counts_while_it_can_be_read(site):
    first, second, _ = await site.store_three()
    for stored, breakage in ((first, lose_data), (second, flip_bit)):
        await amend_definition(TargetFile.of(stored.path), {"pinned": True})
        breakage(stored)
        with pytest.raises(ConfigError, match="pinned"):
            await site.forget(stored)
        await site.forget(stored, unpin=True)
        assert site.files_of(stored) == []


async def test_a_broken_backup_with_a_pending_file_is_left_to_clean(site):
    first, _, _ = await site.store_three()
    garble(first)
    first.path.with_name(f"{first.name}.json.pending").write_bytes(b"{")
    with pytest.raises(DefinitionError, match="pending file is still there") as refused:
        await site.forget(first)
    assert "clean -b" in refused.value.hint
    assert first.package.exists()


async def test_a_broken_backup_that_is_read_with_trust_stays(site):
    first, _, _ = await site.store_three()
    flip_bit(first)
    with first.package.open("rb") as package:
        fcntl.flock(package, fcntl.LOCK_SH)
        run = await site.forget(first)
        assert run.not_removed[0].in_use
    assert first.package.exists()
    assert first.path.exists()
