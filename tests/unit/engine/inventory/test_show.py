"""engine/inventory/show.py: all that a definition knows, and commands that do what they say."""

import shlex

import pytest
from msgspec.structs import replace

from fakes.forget_site import flip_bit, garble, lose_data
from fakes.shared_site import SharedSite
from fakes.site import DAY_S, DIRECTORY, NOW
from fakes.stored_backup import DATE
from virtbackup_async.catalog.amendment import amend_definition
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.cli.main import virtbackup
from virtbackup_async.config.target_config import config_of_target
from virtbackup_async.engine.inventory.chosen_backup import find_backup
from virtbackup_async.engine.inventory.show import ShowRequest, run_show
from virtbackup_async.errors import CorruptError, NotFoundError
from virtbackup_async.events import ShownBackup, ShownLack, Warned
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.model.tracking import Reading


class ShowSite(SharedSite):
    async def show(self, name="web", config=None):
        return await run_show(self.runtime(config, now=lambda: NOW), ShowRequest(name))

    async def change(self, stored, **changed):
        definition = replace(stored.read(), **changed)
        await Catalog(StorageLocation.of(self.target)).write_definition(definition)


@pytest.fixture
def site(tmp_path):
    return ShowSite(tmp_path)


async def test_all_of_a_definition_is_shown(site):
    await site.store_chunks([1, 2, 3])
    stored = await site.store_chunks([1, 2, 4], day=1)
    record = stored.read().records["vda"]
    reading = Reading("virtbackup-x", "the-base", None, DATE, 5, audited_bytes=7)
    await site.change(
        stored,
        records={"vda": replace(record, reading=reading)},
        quiesced=True, frozen_ms=41, method="pull", note="before upgrade", pinned=True,
        skipped={"vdb": "it is a host device"}, domain_uuid="u", state="running",
    )  # fmt: skip
    shown = await site.show()
    assert (shown.backup, shown.state, shown.date_unix) == (stored.name, "unverified", DATE + DAY_S)
    assert shown.age_s == NOW.timestamp() - shown.date_unix
    assert (shown.method, shown.frozen_ms, shown.quiesced) == ("pull", 41, True)
    assert (shown.note, shown.pinned, shown.uuid) == ("before upgrade", True, "u")
    (disk,) = shown.disks
    assert (disk.disk, disk.base, disk.reason) == ("vda", "the-base", None)
    assert (disk.read_bytes, disk.audited_bytes) == (5, 7)
    assert disk.source == str(site.root / "of.raw")
    assert disk.digest == record.image.digest
    assert shown.skipped == (ShownLack("vdb", "it is a host device"),)
    # Of three chunks, only the last is its own.
    whole = (await site.show(f"web@{stored.name}")).frees_bytes
    assert 0 < whole < 3 * 256 * 1024


async def test_the_state_is_what_verify_found(site):
    stored = await site.store()
    await site.verify()
    shown = await site.show()
    assert (shown.state, shown.verified_error) == ("good", None)
    assert shown.verified_date is not None
    found = {"date": DATE, "ok": False, "digests": True, "error": "one block"}
    await amend_definition(TargetFile.of(stored.path), {"verified": found})
    shown = await site.show()
    assert (shown.state, shown.verified_error) == ("damaged", "one block")


@pytest.mark.parametrize("breakage", [lose_data, garble, flip_bit])
async def test_a_broken_backup_is_shown_with_its_reason(site, breakage):
    await site.store()
    stored = await site.store(date=DATE + DAY_S)
    breakage(stored)
    with pytest.raises(CorruptError, match="broken"):
        await site.show("web@latest")
    (shown,) = site.of(ShownBackup)
    assert (shown.state, shown.backup) == ("broken", stored.name)
    assert shown.error
    assert shown.date_unix == DATE + DAY_S
    commands = [shlex.split(line) for line in shown.commands]
    assert any("forget" in words for words in commands)
    assert any("--trust-definition" in words for words in commands) == (breakage is flip_bit)


async def test_the_older_backup_that_has_a_disk_is_named(site):
    older = await site.store()
    stored = await site.store(date=DATE + DAY_S)
    await site.change(stored, disks={}, records={}, skipped={"vda": "it is not readable"})
    shown = await site.show()
    assert shown.skipped == (ShownLack("vda", "it is not readable", older.name),)


async def test_each_command_names_this_very_backup(site):
    stored = await site.store(domain="db server@1")
    await site.store(domain="db server@1", date=DATE + DAY_S)
    (site.root / "other").mkdir()
    for groups in (
        {"all": {"hosts": ["r:.*"]}},
        {"a": {"hosts": ["r:.*"]}, "b": {"hosts": ["x"], "target": str(site.root / "other")}},
    ):
        config = site.configure(**groups)
        shown = await site.show(stored.name, config)
        assert len(shown.commands) == 4
        for line in shown.commands:
            words = shlex.split(line)
            assert words[:3] == ["virtbackup", "-c", str(config.path)]
            assert words[3] in virtbackup.list_commands(None)
            assert (await find_backup(config, None, words[4], None)).path.local == stored.path


async def test_without_a_configuration_the_commands_name_the_target(site):
    stored = await site.store()
    shown = await site.show(config=config_of_target(site.target))
    for line in shown.commands:
        words = shlex.split(line)
        assert words[2:4] == ["--target", str(site.target)]
        assert words[4] == f"web@{stored.name}"


async def test_a_damaged_repository_leaves_the_size_unknown(site):
    await site.store_chunks([1, 2])
    for segment in (site.target / ".virtbackup-repository" / "index").iterdir():
        segment.write_bytes(b"?" * 100)
    shown = await site.show()
    assert shown.frees_bytes is None
    assert site.of(Warned)


async def test_what_is_not_there_is_said(site):
    await site.store(DIRECTORY)
    with pytest.raises(NotFoundError, match="did you mean 'web'"):
        await site.show("wbe")
