"""Keys of ours in finished definitions, virt-backup's included."""

import json
import os

import anyio
import pytest

from virtbackup_async.catalog import amendment, definition_file
from virtbackup_async.catalog.amendment import amend_definition, hold_definitions
from virtbackup_async.errors import DefinitionError, LockHeldError, NotFoundError, StorageError
from virtbackup_async.model.target_file import TargetFile

RAW = {
    "name": "20260301-021500_3_web",
    "domain_id": 3,
    "domain_name": "web",
    "domain_xml": "<domain/>",
    "disks": {"vda": "20260301-021500_3_web_vda.qcow2"},
    "version": "0.5.6",
    "date": 1772331300,
    "packager": {"type": "directory", "opts": {}},
    "from_the_future": [1, {"a": None}],
}
VERIFIED = {"date": 1772590500, "ok": False, "digests": True, "error": "flipped"}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / f"{RAW['name']}.json"
    path.write_text(json.dumps(RAW))
    return path


async def test_other_keys_stay_and_the_new_ones_are_read(path):
    await amend_definition(TargetFile.of(path), {"verified": VERIFIED})
    await amend_definition(TargetFile.of(path), {"pinned": True})
    assert json.loads(path.read_text()) == {**RAW, "verified": VERIFIED, "pinned": True}
    definition = definition_file.loads(path.read_bytes(), path)
    assert definition.pinned
    assert (definition.verified.date, definition.verified.error) == (1772590500, "flipped")
    again = definition_file.loads(definition_file.dumps(definition), path)
    assert again.verified == definition.verified
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_owner_and_mode_stay(path):
    os.chown(path, 1234, 4321)
    path.chmod(0o640)
    await amend_definition(TargetFile.of(path), {"pinned": True})
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1234, 4321, 0o640)


async def test_changes_at_the_same_time_are_all_kept(path):
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(amend_definition, TargetFile.of(path), {f"key{number}": number})
    raw = json.loads(path.read_text())
    assert all(raw[f"key{number}"] == number for number in range(20))


async def test_removed_definition_does_not_come_back(path):
    path.unlink()
    with pytest.raises(NotFoundError, match="removed in the meantime"):
        await amend_definition(TargetFile.of(path), {"pinned": True})
    assert list(path.parent.iterdir()) == []


async def test_lock_that_is_not_given_back_is_told(path, monkeypatch):
    monkeypatch.setattr(amendment, "LOCK_TIMEOUT_S", 0.1)
    async with hold_definitions(TargetFile.of(path.parent, 1)):
        with pytest.raises(LockHeldError, match="another process changes the definitions"):
            await amend_definition(TargetFile.of(path), {"pinned": True})
    assert json.loads(path.read_text()) == RAW


@pytest.mark.parametrize("content", ["", "[]", "{", "\xff"])
async def test_what_is_no_definition_any_more_is_left_alone(path, content):
    path.write_text(content)
    with pytest.raises(DefinitionError, match="not a definition any more"):
        await amend_definition(TargetFile.of(path), {"pinned": True})
    assert path.read_text() == content


async def test_symlinks_are_not_followed(path, tmp_path):
    elsewhere = tmp_path / "elsewhere.json"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(StorageError):
        await amend_definition(TargetFile.of(path), {"pinned": True})
    assert json.loads(elsewhere.read_text()) == RAW
