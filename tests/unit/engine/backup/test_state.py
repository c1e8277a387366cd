"""The state that a domain has besides its disks, as of one moment."""

import os
import pwd
from pathlib import Path

import pytest

from fakes.site import Site
from virtbackup_async.catalog.scanning import scan_directories
from virtbackup_async.engine.backup import state as state_module
from virtbackup_async.engine.backup.state import MAX_TRIES, StateJob, copy_state, find_state
from virtbackup_async.errors import ImageError, StorageError
from virtbackup_async.events import Warned
from virtbackup_async.host.local import LocalHost
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.domain import DomainInfo
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.registry import open_writer
from virtbackup_async.packagers.repository.map_files import list_maps
from virtbackup_async.repository import open_storage

UUID = "b9ef5a09-6e0f-4a44-9e2b-5e5f7a1d2c3b"
NAME = "20260301-021500_3_web"
NVRAM = os.urandom(65536)


class StateSite(Site):
    """A domain with NVRAM and a TPM, and a target."""

    def __init__(self, root):
        super().__init__(root)
        self.nvram = root / "web.fd"
        self.nvram.write_bytes(NVRAM)
        self.tpm = root / "swtpm" / UUID / "tpm2"
        self.tpm.mkdir(parents=True)
        (self.tpm / "tpm2-00.permall").write_bytes(b"seeds")
        (self.tpm / ".lock").touch()
        xml = (
            f"<domain><os><nvram>{self.nvram}</nvram></os>"
            "<devices><tpm><backend type='emulator'/></tpm></devices></domain>"
        )
        self.info = DomainInfo("web", UUID, 3, True, True, xml, root / "swtpm")

    async def copy(self):
        state = await find_state(LocalHost(), self.info)
        job = StateJob("web", state, NAME, TargetFile.of(self.target, 1))
        packager = Packager("directory")
        async with open_writer(packager, self.target, NAME, CpuShares(2)) as package:
            copied = await copy_state(self.runtime(), job, package)
            await package.finish()
        return copied

    def files(self):
        return {path.name: path.read_bytes() for path in self.target.iterdir()}

    def touched_while_read(self, monkeypatch, times):
        """Let the NVRAM be written to each of the first ``times`` times that it was read."""
        write_sparse, left = state_module.write_sparse, [b"%d" % number for number in range(times)]

        async def touching(stream, path, on_progress):
            written = await write_sparse(stream, path, on_progress)
            if left:
                self.nvram.write_bytes(left.pop() + NVRAM)
            return written

        monkeypatch.setattr(state_module, "write_sparse", touching)


@pytest.fixture
def site(tmp_path):
    return StateSite(tmp_path)


async def test_files_are_copied_and_recorded(site):
    copied = await site.copy()
    assert site.files() == {f"{NAME}_nvram.fd": NVRAM, f"{NAME}_tpm-tpm2-00.permall": b"seeds"}
    nvram, tpm = copied.records
    assert (nvram.kind, nvram.image.source, nvram.image.size_bytes) == (
        "nvram", str(site.nvram), 65536,
    )  # fmt: skip
    assert (tpm.kind, tpm.image.file) == ("tpm", f"{NAME}_tpm-tpm2-00.permall")
    assert tpm.image.digest.startswith("blake3-256k:")
    assert tpm.owner == pwd.getpwuid(os.getuid()).pw_name
    assert copied.missing == {}
    assert site.events == []


async def test_file_that_changes_while_it_is_read_is_read_again(site, monkeypatch):
    site.touched_while_read(monkeypatch, MAX_TRIES - 1)
    copied = await site.copy()
    assert site.files()[f"{NAME}_nvram.fd"] == b"0" + NVRAM
    assert len(copied.records) == 2


async def test_file_that_never_stands_still_is_left_out_and_said(site, monkeypatch):
    site.touched_while_read(monkeypatch, MAX_TRIES)
    copied = await site.copy()
    assert set(site.files()) == {f"{NAME}_tpm-tpm2-00.permall"}
    assert "changed each time" in copied.missing["nvram"]
    (warned,) = site.events
    assert isinstance(warned, Warned)
    assert "NVRAM" in warned.message


async def test_file_that_goes_away_is_left_out_and_said(site):
    state = await find_state(LocalHost(), site.info)
    (site.tpm / "tpm2-00.permall").unlink()
    async with open_writer(Packager("directory"), site.target, NAME, CpuShares(2)) as package:
        job = StateJob("web", state, NAME, TargetFile.of(site.target, 1))
        copied = await copy_state(site.runtime(), job, package)
        await package.finish()
    assert [record.kind for record in copied.records] == ["nvram"]
    assert "is gone" in copied.missing["tpm"]
    assert len(site.events) == 1


async def test_what_the_emulator_keeps_is_taken_for_nothing_else(site):
    """It runs as a user of its own, and may call its files what it likes."""
    kept = [f"x{end}" for end in (".json", ".json.pending", ".json.removed", ".map", ".zstd")]
    for name in kept:
        (site.tpm / name).write_bytes(b'{"name": "20260301-021500_3_web_tpm-x"}')
    copied = await site.copy()
    assert [Path(record.image.source).name for record in copied.records[2:]] == kept
    assert set(site.files()) == {record.image.file for record in copied.records}
    scan = scan_directories([TargetFile.of(site.target, 1)])
    assert (scan.complete, scan.pending, scan.removed, scan.problems) == ((), (), (), ())
    assert list_maps(open_storage(StorageLocation.of(site.target.parent))) == []


async def test_only_what_the_emulator_keeps_is_taken(site):
    (site.tpm / "passwd").symlink_to("/etc/passwd")
    (site.tpm / "TMP2-00.permall").write_bytes(b"half")
    (site.tpm / "tpm2-00.permall.before-restore-20260301-021500").write_bytes(b"kept")
    (site.tpm / "directory").mkdir()
    os.mkfifo(site.tpm / "pipe")
    (site.tpm / "tpm2-00.volatilestate").write_bytes(b"now")
    state = await find_state(LocalHost(), site.info)
    names = [file.path.name for file in state.files if file.kind == "tpm"]
    assert names == ["tpm2-00.permall", "tpm2-00.volatilestate"]


@pytest.mark.parametrize("act", ["remove", "empty"])
async def test_state_that_is_not_there_has_a_reason(site, act):
    site.nvram.unlink()
    (site.tpm / "tpm2-00.permall").unlink()
    (site.tpm / ".lock").unlink()
    if act == "remove":
        site.tpm.rmdir()
    state = await find_state(LocalHost(), site.info)
    assert state.files == ()
    assert str(site.nvram) in state.missing["nvram"]
    assert str(site.tpm) in state.missing["tpm"]


async def test_copy_that_cannot_be_read_back_ends_the_backup(site, monkeypatch):
    write_sparse = state_module.write_sparse

    async def lost(stream, path, on_progress):
        written = await write_sparse(stream, path, on_progress)
        path.unlink()
        return written

    monkeypatch.setattr(state_module, "write_sparse", lost)
    with pytest.raises(ImageError):
        await site.copy()
    assert site.files() == {}


async def test_target_that_refuses_ends_the_backup(site):
    (site.target / f"{NAME}_nvram.fd").touch()
    with pytest.raises(StorageError):
        await site.copy()
    assert list(site.files()) == [f"{NAME}_nvram.fd"]
