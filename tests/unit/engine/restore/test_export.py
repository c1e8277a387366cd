"""One disk of a backup becomes one ordinary image, or nothing at all."""

import re
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from fakes.stored_backup import MIB, StoredBackup
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.restore.export import ExportRequest, export_disk
from virtbackup_async.engine.restore.export_target import STDOUT
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import (
    ConfigError,
    CorruptError,
    DefinitionError,
    NotFoundError,
    StorageError,
)
from virtbackup_async.model.backup import Packager

PACKAGERS = ["directory", "tar", "zstd", "repository"]


@pytest.fixture
def output(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "web.img"


async def make(tmp_path, packager, image):
    return await StoredBackup(tmp_path / "target", Packager(packager)).make(tmp_path / image)


async def make_qcow2(tmp_path, packager):
    """A backup of a qcow2 image of 16 MiB with a MiB of data."""
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "16M"], check=True)
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 5M 1M", image]
    subprocess.run(write, check=True, capture_output=True)
    backup = await make(tmp_path, packager, "image")
    text = backup.path.read_text().replace('"format": "raw"', '"format": "qcow2"')
    backup.rewrite(text)
    return backup


def runtime():
    return Runtime(Config(Path("config.yml")), lambda _event: None)


async def export(backup, output, image_format="raw", dev="vda"):
    request = ExportRequest(backup.read(), backup.directory, dev, output, image_format)
    return await export_disk(runtime(), request)


def left(output):
    return [path.name for path in output.parent.iterdir()]


@pytest.mark.parametrize("packager", PACKAGERS)
@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
async def test_any_backup_becomes_an_image_that_qemu_reads(
    tmp_path, output, packager, image_format
):
    backup = await make(tmp_path, packager, "image")
    done = await export(backup, output, image_format)
    assert done.verified
    compare = ["qemu-img", "compare", "-f", "raw", "-F", image_format, tmp_path / "image", output]
    subprocess.run(compare, check=True, capture_output=True)
    assert left(output) == [output.name]
    assert output.stat().st_mode & 0o077 == 0


async def test_a_qcow2_image_is_taken_apart_by_qemu(tmp_path, output):
    backup = await make_qcow2(tmp_path, "repository")
    done = await export(backup, output, "raw")
    assert done.verified
    compare = ["qemu-img", "compare", "-f", "qcow2", "-F", "raw", tmp_path / "image", output]
    subprocess.run(compare, check=True, capture_output=True)
    assert output.stat().st_blocks * 512 < 2 * MIB, "its holes are holes"
    assert left(output) == [output.name]


async def test_a_qcow2_image_that_is_wanted_as_such_is_not_changed(tmp_path, output):
    backup = await make_qcow2(tmp_path, "zstd")
    await export(backup, output, "qcow2")
    assert output.read_bytes() == (tmp_path / "image").read_bytes()


async def test_where_the_extents_are_not_known_before_there_is_a_copy(tmp_path, output):
    backup = await make(tmp_path, "zstd", "image")
    # As virt-backup makes it: nothing tells where the holes are.
    packed = subprocess.run(["zstd", "-qc", tmp_path / "image"], check=True, capture_output=True)
    backup.package.write_bytes(packed.stdout)
    done = await export(backup, output, "qcow2")
    assert done.verified
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", tmp_path / "image", output]
    subprocess.run(compare, check=True, capture_output=True)
    assert output.stat().st_size < MIB, "its holes are holes"


async def test_without_room_for_a_copy_nothing_is_begun(tmp_path, output, monkeypatch, capfdbinary):
    backup = await make_qcow2(tmp_path, "directory")
    text = re.sub('"data_bytes": [0-9]+', '"data_bytes": 1000000000000000', backup.path.read_text())
    backup.rewrite(text)
    with pytest.raises(StorageError, match=r"needs 909\.5 TiB"):
        await export(backup, output, "raw")
    assert left(output) == []
    monkeypatch.setenv("TMPDIR", str(output.parent))
    with pytest.raises(StorageError, match=r"need 909\.5 TiB for a while"):
        await export(backup, STDOUT, "raw")
    assert left(output) == []
    assert capfdbinary.readouterr().out == b""


async def test_an_existing_file_is_not_touched(tmp_path, output):
    backup = await make(tmp_path, "repository", "image")
    output.write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        await export(backup, output)
    assert output.read_text() == "mine"


async def test_damage_leaves_nothing(tmp_path, output):
    backup = await make(tmp_path, "repository", "image")
    backup.flip()
    with pytest.raises(CorruptError):
        await export(backup, output)
    assert left(output) == []


async def test_a_disk_that_is_not_there(tmp_path, output):
    backup = await make(tmp_path, "repository", "image")
    with pytest.raises(NotFoundError):
        await export(backup, output, dev="vdz")
    assert left(output) == []


@pytest.mark.parametrize("names", ["backing", "data"])
async def test_a_header_that_names_a_file_of_the_host_is_not_believed(tmp_path, output, names):
    (tmp_path / "secret").write_bytes(bytes(65536))
    image = tmp_path / "image"
    create = ["qemu-img", "create", "-f", "qcow2"]
    if names == "backing":
        create += ["-F", "raw", "-b", tmp_path / "secret", image]
    else:
        create += ["-o", f"data_file={tmp_path}/secret,data_file_raw=on", image, "64k"]
    subprocess.run(create, check=True, capture_output=True)
    backup = await make(tmp_path, "directory", "image")
    text = backup.path.read_text().replace('"format": "raw"', '"format": "qcow2"')
    backup.rewrite(text)
    with pytest.raises(DefinitionError, match="not in the backup"):
        await export(backup, output)
    assert left(output) == []


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
async def test_cipher_text_is_no_disk_that_a_guest_sees(tmp_path, output, image_format):
    """A raw image that was copied encrypted; what is recorded of it is that it is raw."""
    backup = await make(tmp_path, "directory", "image")
    disk = "<disk><source><encryption/></source><target dev='vda'/></disk>"
    xml = f"<domain><name>web</name><devices>{disk}</devices></domain>"
    request = ExportRequest(
        replace(backup.read(), domain_xml=xml), backup.directory, "vda", output, image_format
    )
    with pytest.raises(DefinitionError, match="is encrypted as a whole"):
        await export_disk(runtime(), request)
    assert left(output) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.raw", "raw"), ("a.RAW", "raw"), ("a.qcow2", "qcow2"), ("a.img", "qcow2"), ("a", "qcow2")],
)
async def test_the_suffix_says_the_format_where_nobody_else_does(tmp_path, output, name, expected):
    backup = await make(tmp_path, "zstd", "image")
    done = await export(backup, output.with_name(name), image_format=None)
    assert done.format == expected
    compare = ["qemu-img", "compare", "-f", "raw", "-F", expected, tmp_path / "image"]
    subprocess.run([*compare, output.with_name(name)], check=True, capture_output=True)


@pytest.mark.parametrize("suffix", ["vmdk", "VHDX", "vdi", "vpc"])
async def test_a_name_of_another_format_is_not_given_to_a_qcow2(tmp_path, output, suffix):
    backup = await make(tmp_path, "zstd", "image")
    with pytest.raises(ConfigError, match="written as qcow2 or raw, not as"):
        await export(backup, output.with_name(f"a.{suffix}"), image_format=None)
    assert left(output) == []
    await export(backup, output.with_name(f"a.{suffix}"), image_format="raw")


async def test_a_missing_directory_is_named_and_no_temporary_file(tmp_path):
    backup = await make(tmp_path, "zstd", "image")
    with pytest.raises(StorageError) as raised:
        await export(backup, tmp_path / "nowhere" / "a.raw")
    assert raised.value.message == f"{tmp_path}/nowhere is not a directory"


async def test_too_little_room_is_said_before_anything_is_written(tmp_path, output):
    backup = await make(tmp_path, "zstd", "image")
    backup.rewrite(
        re.sub('"data_bytes": [0-9]+', f'"data_bytes": {1 << 60}', backup.path.read_text())
    )
    with pytest.raises(StorageError, match=r"too little room: .* needs 1024.0 PiB"):
        await export(backup, output)
    assert left(output) == []
