"""An overlay that was written before stays readable: docs/reference/formats.md, Overlay."""

import gzip
from pathlib import Path

from fakes.memory_device import MemoryDevice
from virtbackup_async.engine.serve.overlay_device import OverlayDevice
from virtbackup_async.engine.serve.overlay_file import BLOCK_BYTES, Below, OverlayFile

SAMPLE = Path(__file__).parent / "data" / "overlay-1" / "web.overlay.gz"
SIZE = 3 * BLOCK_BYTES + 100
BELOW = Below("web", "20260301-021500_3_web", "vda", SIZE, ("blake3-256k:" + "00" * 32,))


async def test_it_has_what_was_written(tmp_path):
    path = tmp_path / "web.overlay"
    path.write_bytes(gzip.decompress(SAMPLE.read_bytes()))
    expected = bytearray(b"b" * SIZE)
    expected[5:12] = b"written"
    expected[BLOCK_BYTES : 2 * BLOCK_BYTES] = bytes(BLOCK_BYTES)
    expected[-3:] = b"end"
    file = OverlayFile(path, BELOW)
    assert await OverlayDevice(MemoryDevice(b"b" * SIZE), file).read(0, SIZE) == expected
    file.close()
