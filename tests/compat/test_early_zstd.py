"""A zstd package of before there were runs is read from front to back, and comes out whole."""

from pathlib import Path

from virtbackup_async.images.buffers import BUFFER_BYTES, BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.model.backup import Packager
from virtbackup_async.packagers.registry import open_reader

SAMPLE = Path(__file__).parent / "data" / "zstd-map-1"
MIB = 1 << 20


async def test_an_early_package_is_restored(tmp_path):
    text = b"".join(b"line %d of %d\n" % (number, number % 7) for number in range(900))
    image = text + bytes(9 * MIB - len(text)) + text + bytes(3 * MIB - len(text))
    restored = tmp_path / "restored"
    reader = open_reader(Packager("zstd"), SAMPLE, "N", BufferPool(4 * BUFFER_BYTES))
    async with reader as package, package.open_disk("N_vda.raw") as stream:
        await write_sparse(stream, restored, lambda _: None)
    assert restored.read_bytes() == image
    assert restored.stat().st_blocks * 512 <= MIB
