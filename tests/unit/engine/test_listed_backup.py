"""A definition that has its name is counted on: the data of its backup stays, whatever fails."""

import contextlib
import errno

import pytest
import yaml

from fakes.failing_calls import failing
from fakes.hypervisor import DescribedDomain, FakeHypervisor
from fakes.site import NOW
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.verify.filters import VerifyRequest
from virtbackup_async.engine.verify.verify import run_verify
from virtbackup_async.errors import NotFoundError
from virtbackup_async.events import BackupFailed, VerifyDone, VerifyFailed
from virtbackup_async.model.storage_location import StorageLocation


@pytest.fixture
def config(tmp_path):
    (tmp_path / "target").mkdir()

    def config(packager):
        group = {"target": str(tmp_path / "target"), "packager": packager, "autostart": True}
        path = tmp_path / "config.yml"
        path.write_text(yaml.safe_dump({"groups": {"main": {**group, "hosts": ["fake"]}}}))
        return load_config(path)

    return config


@pytest.mark.parametrize("packager", ["directory", "tar", "zstd", "repository"])
@pytest.mark.parametrize("is_removable", [True, False], ids=["taken back", "stays"])
async def test_a_definition_that_cannot_be_synced(config, tmp_path, packager, is_removable):
    image = tmp_path / "fake.raw"
    image.write_bytes(b"x" * 65536)
    events = []
    domain = DescribedDomain({"vda": image}, active=False)
    directory = tmp_path / "target" / "fake"

    def is_after_the_definition(path):
        return path == directory and any(directory.glob("*.json"))

    def stays(path):
        return not is_removable and path.suffix == ".json"

    with (
        failing("fsync", is_after_the_definition, errno.EIO) as failed,
        failing("unlink", stays, errno.EIO),
    ):
        await run_backup(
            Runtime(config(packager), events.append, FakeHypervisor(domain)), BackupRequest()
        )
    assert failed
    assert [event for event in events if isinstance(event, BackupFailed)]
    scan = await Catalog(StorageLocation.of(tmp_path / "target")).scan()
    assert (len(scan.complete), scan.pending) == (0 if is_removable else 1, ())
    found = scan.complete
    with contextlib.nullcontext() if found else pytest.raises(NotFoundError, match="no backup"):
        await run_verify(Runtime(config(packager), events.append, now=lambda: NOW), VerifyRequest())
    assert len([event for event in events if isinstance(event, VerifyDone)]) == len(found)
    assert not [event for event in events if isinstance(event, VerifyFailed)]
