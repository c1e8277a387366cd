"""writer.py, not compressed: data at its place in the archive, past the page cache."""

import io
import os
import subprocess
import tarfile

import pytest

from page_cache import cached_bytes
from virtbackup_async.files.direct_io import lies_on_a_device
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.backup import Packager
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.registry import open_writer

MIB = 1 << 20
NAME = "20260101-000000_1_web"


async def packed(tmp_path, contents, on_progress=lambda _: None):
    """The archive of images of these contents, each a disk."""
    (tmp_path / "target").mkdir()
    packager = Packager("tar")
    async with open_writer(packager, tmp_path / "target", NAME, CpuShares(1)) as package:
        for number, content in enumerate(contents):
            image = tmp_path / f"image-{number}"
            image.write_bytes(content)
            async with open_image_stream(image, BufferPool()) as stream:
                await package.add_disk(f"disk-{number}", stream, on_progress)
        await package.finish()
    return tmp_path / "target" / f"{NAME}.tar"


async def test_data_is_never_in_the_page_cache(tmp_path):
    with (tmp_path / "any").open("wb") as file:
        if not lies_on_a_device(file.fileno()):
            pytest.skip("the temporary directory is not on the file system of a block device")
    archive, seen = tmp_path / "target" / f"{NAME}.tar", []
    contents = [os.urandom(MIB) * 17 + b"odd", os.urandom(MIB) * 13]
    await packed(tmp_path, contents, lambda _: seen.append(cached_bytes(archive)))
    # The heads, and the odd end of the first disk.
    assert max(seen) <= 64 * 1024
    assert len(seen) == 9


async def test_odd_lengths_and_zeros_between_data_are_where_readers_look_for_them(tmp_path):
    data = os.urandom(MIB)
    contents = [
        data + bytes(9 * MIB) + data + b"odd",
        b"",
        bytes(5 * MIB),
        data[:700],
        data * 5 + bytes(3 * MIB),
    ]
    archive = await packed(tmp_path, contents)
    with tarfile.open(archive) as opened:
        for number, content in enumerate(contents):
            assert opened.extractfile(f"disk-{number}").read() == content
        assert len(opened.getmembers()) == len(contents)
    assert archive.stat().st_blocks * 512 < 9 * MIB, "zeros take space in the archive"


async def test_tar_itself_says_nothing_against_it(tmp_path):
    content = os.urandom(3 * MIB + 5)
    archive = await packed(tmp_path, [content, content[:10]])
    ran = subprocess.run(["tar", "-xvf", archive, "-O"], capture_output=True, check=True)
    assert ran.stderr.decode().split() == ["disk-0", "disk-1"]
    assert io.BytesIO(ran.stdout).read() == content + content[:10]
