"""docs/reference/formats.md gives a program for the digest: it must print what a stream says."""

import re
import subprocess
import sys
from pathlib import Path

from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream

FORMATS = Path(__file__).parents[3] / "docs" / "reference" / "formats.md"


async def test_documented_program_prints_the_digest_of_a_stream(tmp_path):
    section = FORMATS.read_text().partition("\n## Digest\n")[2]
    program = re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate((3 << 20) + 5)
        file.write(b"abc" * 500000)
    async with open_image_stream(image, BufferPool()) as stream:
        async for _ in stream.pieces():
            pass
    said = subprocess.check_output([sys.executable, "-c", program, image], text=True)
    assert said.strip() == stream.digest
