"""catalog/removing.py and what a scan makes of it."""

import os

from virtbackup_async.catalog.removing import begin_removal, end_removal, remove_claim
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile

NAME = "20260301-021500_3_" + "w" * 224  # with ".json.pending" as long as a file name may be


async def test_a_note_fits_wherever_a_pending_file_did(tmp_path):
    definition = tmp_path / f"{NAME}.json"
    definition.touch()
    definition.with_name(f"{NAME}.json.pending").touch()
    note = await begin_removal(TargetFile.of(definition), ())
    assert note.local.exists()
    assert not definition.exists()
    assert await begin_removal(note, ()) == note
    await end_removal(note)
    assert not note.local.exists()


async def test_a_claim_is_removed_while_it_is_empty(tmp_path):
    claim = tmp_path / "a.json.pending"
    claim.touch()
    assert await remove_claim(TargetFile.of(claim))
    assert list(tmp_path.iterdir()) == []
    assert not await remove_claim(TargetFile.of(claim))


async def test_a_claim_that_was_filled_stays_with_its_content(tmp_path):
    claim = tmp_path / "a.json.pending"
    claim.write_text("{}")
    assert not await remove_claim(TargetFile.of(claim))
    assert claim.read_text() == "{}"
    assert list(tmp_path.iterdir()) == [claim]


async def test_what_its_owner_writes_meanwhile_stays(tmp_path, monkeypatch):
    """The owner's write comes between the move aside and the look."""
    claim = tmp_path / "a.json.pending"
    claim.touch()
    real = os.rename

    def rename(source, target, **directories):
        real(source, target, **directories)
        claim.write_text("{}")

    monkeypatch.setattr(os, "rename", rename)
    await remove_claim(TargetFile.of(claim))
    assert claim.read_text() == "{}"


async def test_files_beside_an_unreadable_description_are_no_strays(tmp_path):
    web = tmp_path / "web"
    web.mkdir()
    for name in ("20260301-021500_3_web.json", "20260301-021500_3_web_vda.raw"):
        (web / name).write_text("{")
    (web / "20260302-021500_3_web_vda.raw").touch()
    scan = await Catalog(StorageLocation.of(tmp_path)).scan()
    assert [path.name for path in scan.strays] == ["20260302-021500_3_web_vda.raw"]
    assert len(scan.problems) == 1
