"""packagers/names.py and registry.py: virt-backup's names, and no way out of the target."""

from pathlib import Path

import pytest

from virtbackup_async.errors import DefinitionError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.model.backup import Packager
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.names import tar_path
from virtbackup_async.packagers.registry import open_reader, open_writer, package_paths

HERE = Path("/target/web")


@pytest.mark.parametrize(
    ("packager", "expected"),
    [
        (Packager("directory"), ["n_vda.raw", "n_vdb.raw"]),
        (Packager("tar"), ["n.tar"]),
        (Packager("tar", {"compression": "tar"}), ["n.tar"]),
        (Packager("tar", {"compression": "gz"}), ["n.tar.gz"]),
        (Packager("tar", {"compression": "bz2", "compression_lvl": 3}), ["n.tar.bz2"]),
        (Packager("tar", {"compression": "xz"}), ["n.tar.xz"]),
        (Packager("zstd"), ["n_n_vda.raw.zstd", "n_n_vdb.raw.zstd"]),
    ],
    ids=str,
)
def test_paths_are_those_of_virt_backup(packager, expected):
    paths = package_paths(packager, HERE, "n", ["n_vda.raw", "n_vdb.raw"])
    assert paths == tuple(HERE / name for name in expected)


def test_name_with_tar_in_it_gets_no_extension():
    packager = Packager("tar", {"compression": "gz"})
    assert tar_path(HERE, "n_my.tar.vm", packager) == HERE / "n_my.tar.vm"


@pytest.mark.parametrize("compression", ["../x", "zip", 3, ["gz"], {}])
def test_unknown_compression_of_a_definition_is_refused(compression):
    with pytest.raises(DefinitionError, match="unknown tar compression"):
        tar_path(HERE, "n", Packager("tar", {"compression": compression}))


@pytest.mark.parametrize("type_", ["directory", "tar", "zstd", "rar"])
@pytest.mark.parametrize("name", ["../n", "", "..", "a\0"])
async def test_hostile_name_of_a_backup_is_refused_everywhere(tmp_path, type_, name):
    packager = Packager(type_)
    with pytest.raises(DefinitionError):
        package_paths(packager, tmp_path, name, ["n_vda.raw"])
    with pytest.raises(DefinitionError):
        async with open_reader(packager, tmp_path, name, BufferPool()):
            pass
    with pytest.raises(DefinitionError):
        async with open_writer(packager, tmp_path, name, CpuShares(1)):
            pass


async def test_unknown_packager_of_a_definition_is_refused(tmp_path):
    with pytest.raises(DefinitionError, match="unknown packager of n: 'rar'"):
        async with open_reader(Packager("rar"), tmp_path, "n", BufferPool()):
            pass
