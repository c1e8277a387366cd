"""engine/restore/to_directory.py with real packages: everything byte for byte, or nothing."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from anyio import create_task_group
from msgspec.structs import replace

from virtbackup_async.config.schema import Config
from virtbackup_async.engine.restore.plan import Formats
from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import (
    ConfigError,
    CorruptError,
    DefinitionError,
    DigestMismatchError,
    NotFoundError,
    StorageError,
)
from virtbackup_async.events import DiskDone, DiskProgress, FileFormat, RestoreStarted, Warned
from virtbackup_async.images.buffers import BUFFER_BYTES, BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.backup import (
    Definition,
    DiskRecord,
    ImageRecord,
    Original,
    Packager,
    StateRecord,
)
from virtbackup_async.model.qcow2_options import Qcow2Options
from virtbackup_async.model.tracking import Reading
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.registry import open_writer
from virtbackup_async.qemu.qcow2 import head_of

MIB = 1 << 20
NAME = "20260301-021500_3_web"


def sparse_image(path, size_bytes, data):
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for offset, content in data.items():
            file.seek(offset)
            file.write(content)


class Backup:
    """A backup of two disks; ``vda`` has an image below its own."""

    def __init__(self, root, packager):
        self.directory, self.images = root / "backups", root / "images"
        self.target = root / "restored"
        self.directory.mkdir()
        self.images.mkdir()
        self.packager = packager
        self.buffers = BufferPool(8 * BUFFER_BYTES)
        self.events = []
        sparse_image(self.images / "web.qcow2", 5 * MIB + 7, {0: b"top", 4 * MIB: os.urandom(5000)})
        sparse_image(self.images / "golden.raw", 3 * MIB, {MIB: os.urandom(MIB)})
        sparse_image(self.images / "data.raw", 9 * MIB, {8 * MIB: b"x" * 1000})

    async def make(self):
        cpu = CpuShares(2)
        files = {"web.qcow2": "vda.qcow2", "golden.raw": "vda.1.raw", "data.raw": "vdb.raw"}
        records = {}
        async with open_writer(self.packager, self.directory, NAME, cpu) as package:
            for image, file in files.items():
                path = self.images / image
                async with open_image_stream(path, self.buffers) as stream:
                    stored = await package.add_disk(f"{NAME}_{file}", stream, lambda _: None)
                records[image] = ImageRecord(
                    f"{NAME}_{file}", str(path), path.suffix[1:], stream.size_bytes,
                    stream.data_bytes, stored, stream.digest,
                )  # fmt: skip
            await package.finish()
        self.definition = Definition(
            name=NAME, domain_id=3, domain_name="web", domain_xml="<domain/>",
            disks={"vda": f"{NAME}_vda.qcow2", "vdb": f"{NAME}_vdb.raw"}, version="1.0.0",
            date=0, packager=self.packager, records={
                "vda": DiskRecord(records["web.qcow2"], (records["golden.raw"],)),
                "vdb": DiskRecord(records["data.raw"]),
            },
        )  # fmt: skip

    def with_state(self, nvram, tpm=None, **changed):
        """Return the definition with state that has the content of ``vdb``."""
        image = replace(self.definition.records["vdb"].image, **changed)
        state = [StateRecord("nvram", replace(image, source=nvram))]
        if tpm:
            state.append(StateRecord("tpm", replace(image, source=tpm)))
        return replace(self.definition, state_files=tuple(state))

    async def restore(self, definition=None, emit=None, disks=(), **options):
        definition = definition or self.definition
        request = RestoreRequest(definition, self.directory, self.target, disks, **options)
        return await restore_backup(self.runtime(emit or self.events.append), request)

    def runtime(self, emit):
        return Runtime(Config(self.target / "config.yml", buffers_mib=32), emit)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def record_of_vdb(self, **changes):
        image = replace(self.definition.records["vdb"].image, **changes)
        records = {**self.definition.records, "vdb": DiskRecord(image)}
        return replace(self.definition, records=records)


@pytest.fixture(params=["directory", "tar", "zstd"])
async def any_backup(request, tmp_path):
    backup = Backup(tmp_path, Packager(request.param))
    await backup.make()
    return backup


@pytest.fixture
async def backup(tmp_path):
    backup = Backup(tmp_path, Packager("directory"))
    await backup.make()
    yield backup
    assert backup.buffers.available == 8


async def test_restores_every_image_byte_for_byte_under_its_own_name(any_backup):
    done = await any_backup.restore()
    assert done.files == ("web.qcow2", "golden.raw", "data.raw", "web.xml")
    assert done.verified
    assert sorted(path.name for path in any_backup.target.iterdir()) == sorted(done.files)
    for name in done.files[:3]:
        restored, original = any_backup.target / name, any_backup.images / name
        assert restored.read_bytes() == original.read_bytes()
        assert restored.stat().st_mode & 0o777 == 0o600
    assert (any_backup.target / "web.xml").read_text() == "<domain/>"


async def test_restores_the_wanted_disks_alone(any_backup):
    done = await any_backup.restore(disks=("vdb",))
    assert done.files == ("data.raw", "web.xml")
    assert any_backup.events[0].disks == ("vdb",)
    restored = (any_backup.target / "data.raw").read_bytes()
    assert restored == (any_backup.images / "data.raw").read_bytes()
    assert sorted(path.name for path in any_backup.target.iterdir()) == ["data.raw", "web.xml"]


async def test_state_is_restored_with_all_disks_and_not_with_some(any_backup):
    definition = any_backup.with_state("/n/web_VARS.fd", "/swtpm/tpm2/tpm2-00.permall")
    done = await any_backup.restore(definition)
    assert done.files[3:] == ("web_VARS.fd", "tpm-tpm2-00.permall", "web.xml")
    for name in done.files[3:5]:
        restored = (any_backup.target / name).read_bytes()
        assert restored == (any_backup.images / "data.raw").read_bytes()
    for name in done.files:
        (any_backup.target / name).unlink()
    assert (await any_backup.restore(definition, disks=("vdb",))).files == ("data.raw", "web.xml")


async def test_damaged_state_leaves_nothing(backup):
    definition = backup.with_state("/n/web_VARS.fd", digest="blake3-256k:00")
    with pytest.raises(DigestMismatchError, match="vdb"):
        await backup.restore(definition)
    assert not backup.target.exists()


@pytest.mark.parametrize(
    ("source", "name"), [("/etc/..", f"{NAME}_vdb.raw"), ("/x/data.raw", "nvram_data.raw")]
)
async def test_state_with_a_hostile_or_taken_source_stays_in_the_target(backup, source, name):
    done = await backup.restore(backup.with_state(source))
    assert done.files[3] == name
    assert len(list(backup.target.iterdir())) == 5


async def test_unknown_disk_is_not_found_and_the_others_are_named(backup):
    with pytest.raises(NotFoundError, match=r"no disk vdx in .* Its disks are: vda, vdb\.$"):
        await backup.restore(disks=("vda", "vdx"))
    assert not backup.target.exists()


async def test_says_what_happens(any_backup):
    done = await any_backup.restore()
    assert any_backup.events[0] == RestoreStarted(
        "web", NAME, str(any_backup.target), ("vda", "vdb")
    )
    assert {(event.disk, event.file) for event in any_backup.of(DiskDone)} == {
        ("vda", "web.qcow2"),
        ("vdb", "data.raw"),
    }
    assert sum(event.data_bytes for event in any_backup.of(DiskDone)) == done.data_bytes
    for dev in ("vda", "vdb"):
        said = [event.done_bytes for event in any_backup.of(DiskProgress) if event.disk == dev]
        assert said == sorted(said)
        assert said[-1] > 0


async def test_warns_how_to_put_a_restored_chain_together(backup):
    await backup.restore()
    (warning,) = backup.of(Warned)
    target = backup.target
    command = f"qemu-img rebase -u -f qcow2 -F raw -b {target}/golden.raw {target}/web.qcow2"
    assert f"`{command}`" in warning.message


@pytest.mark.parametrize("name", ["golden.raw", "web.xml"])
async def test_never_overwrites(backup, name):
    backup.target.mkdir()
    (backup.target / name).write_text("mine")
    with pytest.raises(StorageError, match=f"file exists already: .*{name}"):
        await backup.restore()
    assert (backup.target / name).read_text() == "mine"
    assert [path.name for path in backup.target.iterdir()] == [name]
    assert not backup.events


async def test_file_that_appears_meanwhile_is_not_overwritten(backup):
    def emit(event):
        if isinstance(event, DiskDone) and event.disk == "vdb":
            (backup.target / "data.raw").write_text("mine")

    with pytest.raises(StorageError, match=r"cannot create .*data\.raw"):
        await backup.restore(emit=emit)
    assert [path.name for path in backup.target.iterdir()] == ["data.raw"]
    assert (backup.target / "data.raw").read_text() == "mine"


async def test_parts_of_a_killed_restore_are_removed_and_nothing_else(backup):
    backup.target.mkdir()
    for name in ("data.raw.vbk-0123abcd.part", "mine.part", "mine.vbk-0123abcd"):
        (backup.target / name).write_text("part")
    await backup.restore()
    assert not (backup.target / "data.raw.vbk-0123abcd.part").exists()
    assert (backup.target / "mine.part").exists()
    assert (backup.target / "mine.vbk-0123abcd").exists()


async def test_parts_of_a_restore_that_lives_are_left_alone(backup):
    backup.target.mkdir()
    part = backup.target / "other.raw.vbk-0123abcd.part"
    part.write_text("part")
    descriptor = os.open(backup.target, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        await backup.restore()
    finally:
        os.close(descriptor)
    assert part.read_text() == "part"


async def test_a_directory_that_is_in_use_is_named(backup):
    """No file is touched, but the restored ones are mixed with others: the admin is told."""
    backup.target.mkdir()
    (backup.target / "other.qcow2").write_text("hi")
    (backup.target / "db.qcow2.vbk-01234567.part").write_text("another restore's")
    await backup.restore()
    warned = [event.message for event in backup.events if isinstance(event, Warned)]
    said = f"{backup.target} is not empty: the restored files are written next to 1 other file"
    assert [text for text in warned if "not empty" in text] == [said]
    assert (backup.target / "other.qcow2").read_text() == "hi"


async def test_an_empty_directory_needs_no_warning(backup):
    backup.target.mkdir()
    await backup.restore()
    assert not [e for e in backup.events if isinstance(e, Warned) and "not empty" in e.message]


async def test_wrong_digest_leaves_nothing(backup):
    wrong = backup.record_of_vdb(digest="blake3-256k:" + "0" * 64)
    with pytest.raises(
        DigestMismatchError, match=r"vdb\.raw is damaged: its data is not what was backed up"
    ) as raised:
        await backup.restore(wrong)
    assert raised.value.disk == "vdb"
    assert not backup.target.exists()


async def test_wrong_size_leaves_nothing(backup):
    with pytest.raises(CorruptError, match=r"is 9\.0 MiB long, 1 B less than was recorded"):
        await backup.restore(backup.record_of_vdb(size_bytes=9 * MIB + 1))
    assert not backup.target.exists()


async def test_missing_package_leaves_nothing(backup):
    (backup.directory / f"{NAME}_vdb.raw").unlink()
    with pytest.raises(CorruptError, match=r"vdb\.raw"):
        await backup.restore()
    assert not backup.target.exists()


async def test_too_little_space_is_said_before_anything_is_written(backup):
    with pytest.raises(StorageError, match="too little room"):
        await backup.restore(backup.record_of_vdb(data_bytes=1 << 60))
    assert not backup.target.exists()
    assert not backup.events


async def test_cancelled_restore_leaves_nothing(backup):
    async with create_task_group() as tasks:
        await backup.restore(
            emit=lambda event: tasks.cancel_scope.cancel() if isinstance(event, DiskDone) else None
        )
    assert tasks.cancel_scope.cancelled_caught
    assert not backup.target.exists()


async def test_backup_without_records_takes_the_names_of_the_xml(any_backup):
    xml = """<domain><devices>
        <disk type='file'><source file='/srv/web.qcow2'/><target dev='vda'/></disk>
        <disk type='file'><source file='/other/web.qcow2'/><target dev='vdb'/></disk>
    </devices></domain>"""
    old = replace(any_backup.definition, records={}, domain_xml=xml)
    done = await any_backup.restore(old)
    assert done.files == ("web.qcow2", "vdb_web.qcow2", "web.xml")
    assert not done.verified
    restored = any_backup.target / "vdb_web.qcow2"
    assert restored.read_bytes() == (any_backup.images / "data.raw").read_bytes()
    for event in any_backup.of(DiskProgress):
        assert 0 <= event.done_bytes <= event.total_bytes


@pytest.mark.parametrize("xml", ["", "<domain/>", "<!DOCTYPE d [<!ENTITY e 'x'>]><d>&e;</d>"])
async def test_without_any_source_the_package_names_are_taken(backup, xml):
    done = await backup.restore(replace(backup.definition, records={}, domain_xml=xml))
    assert done.files == (f"{NAME}_vda.qcow2", f"{NAME}_vdb.raw", "web.xml")


@pytest.mark.parametrize("source", ["/", "/images/..", "", "/a/\n"])
async def test_hostile_source_falls_back_to_the_package_name(backup, source):
    done = await backup.restore(backup.record_of_vdb(source=source))
    assert f"{NAME}_vdb.raw" in done.files


async def test_hostile_domain_name_stays_in_the_target(backup):
    done = await backup.restore(replace(backup.definition, domain_name="../../etc/x"))
    assert (backup.target / done.files[-1]).read_text() == "<domain/>"
    assert len(list(backup.target.iterdir())) == 4


async def test_hostile_file_in_the_definition_is_refused(backup):
    with pytest.raises(DefinitionError):
        await backup.restore(backup.record_of_vdb(file="../../etc/passwd"))
    assert not backup.target.exists()


async def test_existing_target_directory_stays(backup):
    backup.target.mkdir()
    (backup.directory / f"{NAME}_vdb.raw").unlink()
    with pytest.raises(CorruptError):
        await backup.restore()
    assert list(backup.target.iterdir()) == []


async def test_target_that_is_a_file_is_a_storage_error(backup):
    backup.target.write_text("x")
    with pytest.raises(StorageError, match="cannot create"):
        await backup.restore()
    assert Path(backup.target).read_text() == "x"


def pulled(backup, layout=None):
    """Its second disk, raw in the package, as one that was on qcow2."""
    record = backup.definition.records["vdb"]
    image = replace(record.image, source=str(backup.images / "data.qcow2"))
    disk = DiskRecord(image, original=Original("qcow2", layout))
    return replace(
        backup.definition, method="pull", disks={"vdb": image.file}, records={"vdb": disk}
    )


@pytest.mark.parametrize(
    ("formats", "name", "image_format"),
    [
        (Formats(), "data.raw", "raw"),
        (Formats("qcow2"), "data.qcow2", "qcow2"),
        (Formats(as_they_were=True), "data.qcow2", "qcow2"),
        (Formats("raw", as_they_were=True), "data.raw", "raw"),
    ],
)
async def test_a_pulled_disk_becomes_what_is_wanted(backup, formats, name, image_format):
    layout = Qcow2Options(cluster_bits=12)
    done = await backup.restore(pulled(backup, layout), formats=formats)
    restored = backup.target / name
    (found,) = done.formats
    expected = FileFormat(name, "vdb", image_format, 9 * MIB, "qcow2")
    assert found == expected
    assert done.files == (name, "web.xml")
    compare = ["qemu-img", "compare", "-q", "-f", "raw", "-F", image_format]
    subprocess.run([*compare, backup.images / "data.raw", restored], check=True)
    if image_format == "qcow2":
        assert head_of(restored).layout == layout


async def test_a_layout_that_no_image_has_is_not_believed(backup):
    wild = Qcow2Options(version=9, cluster_bits=60)
    await backup.restore(pulled(backup, wild), formats=Formats("qcow2"))
    assert head_of(backup.target / "data.qcow2").layout == Qcow2Options()


async def test_qcow2_in_a_backup_is_not_taken_apart(backup):
    with pytest.raises(ConfigError, match=r"vda.*is qcow2 in the backup.*export"):
        await backup.restore(formats=Formats("raw"))
    old = replace(backup.definition, records={})
    with pytest.raises(ConfigError, match="nobody recorded"):
        await backup.restore(old, formats=Formats("qcow2"))
    assert not backup.target.exists()


def encrypted(backup, dev="vdb"):
    """Its disk as a raw image that was copied encrypted: what it records is that it is raw."""
    disk = f"<disk><source file='/i'><encryption format='luks'/></source><target dev='{dev}'/>"
    xml = f"<domain><name>web</name><devices>{disk}</disk></devices></domain>"
    assert backup.definition.records[dev].image.format == "raw"
    return replace(backup.definition, domain_xml=xml)


@pytest.mark.parametrize("recorded", ["raw", "luks"])
async def test_cipher_text_does_not_become_qcow2(backup, recorded):
    definition = encrypted(backup)
    image = replace(definition.records["vdb"].image, format=recorded)
    definition = replace(definition, disks={"vdb": image.file}, records={"vdb": DiskRecord(image)})
    with pytest.raises(ConfigError, match="is encrypted as a whole in the backup") as caught:
        await backup.restore(definition, formats=Formats("qcow2"))
    assert "--format" in caught.value.hint
    assert not backup.target.exists()
    for formats in (Formats(), Formats("raw"), Formats(as_they_were=True)):
        (found,) = (await backup.restore(definition, formats=formats)).formats
        assert (found.format, found.was) == ("luks", "luks")
        restored = backup.target / found.file
        assert restored.read_bytes() == (backup.images / "data.raw").read_bytes()
        shutil.rmtree(backup.target)


async def test_nor_does_an_image_of_another_format(backup):
    image = replace(backup.definition.records["vdb"].image, format="vdi")
    other = replace(
        backup.definition, disks={"vdb": image.file}, records={"vdb": DiskRecord(image)}
    )
    with pytest.raises(ConfigError, match="is vdi in the backup, and does not become qcow2"):
        await backup.restore(other, formats=Formats("qcow2"))
    assert not backup.target.exists()


def test_earlier_versions_tell_qcow2_by_its_checkpoint():
    image = ImageRecord("f", "/i", "raw", 1, 1, 1, "")
    tracked, full = (Reading(name, None, None, 0, 0) for name in ("C", None))
    assert DiskRecord(image, reading=tracked).original_format == "qcow2"
    assert DiskRecord(image, reading=full).original_format is None
    assert DiskRecord(image).original_format is None
