"""packagers/registry.py: it opens the packagers that it knows, and loads nothing else."""

import pytest

from virtbackup_async.errors import DefinitionError
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.model.backup import Packager
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.registry import load_writers, open_reader, open_writer


@pytest.mark.parametrize("type_", ["directory", "tar", "zstd", "repository", "rar"])
@pytest.mark.parametrize("name", ["../n", "", "..", "a\0"])
async def test_hostile_name_of_a_backup_is_refused_everywhere(tmp_path, type_, name):
    packager = Packager(type_)
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
    with pytest.raises(DefinitionError, match="unknown packager of n"):
        async with open_writer(Packager("os.path"), tmp_path, "n", CpuShares(1)):
            pass


def test_writers_that_are_unknown_are_not_loaded_ahead():
    load_writers(["rar", "../tar", "codecs"])
