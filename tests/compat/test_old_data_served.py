"""The packages of virt-backup can be served: as they are, or unpacked first."""

import shutil
from pathlib import Path

from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.serve.serving import ServeRequest, serve_backup
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.nbd import UnixAddress, open_nbd

DATA = Path(__file__).parent / "data" / "0.5.6"


async def test_every_backup_of_virt_backup_is_served(tmp_path):
    target = tmp_path / "target"
    shutil.copytree(DATA / "target", target)
    content = (DATA / "vda.raw").read_bytes()
    runtime = Runtime(Config(Path("config.yml")), lambda _: None)
    catalog = Catalog(StorageLocation.of(target))
    served_types = []
    for found in (await catalog.scan()).complete:
        request = ServeRequest(found.definition, found.path.parent)
        async with serve_backup(runtime, request) as served:
            for disk in served.disks:
                address = UnixAddress(Path(disk.uri.partition("?socket=")[2]))
                async with open_nbd(address, name=disk.disk) as client:
                    got = bytearray(disk.size_bytes)
                    await client.read_into(0, memoryview(got))
                assert got == content
        served_types.append(found.definition.packager)
    assert len(served_types) == 5
