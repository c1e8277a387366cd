"""Images of every shape, and packages of every packager, for the suites that all packagers pass."""

import random

from virtbackup_async.images.buffers import BUFFER_BYTES, BufferPool
from virtbackup_async.images.sinks.sparse import write_sparse
from virtbackup_async.images.sources.file import open_image_stream
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.packager import Location
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.registry import open_reader, open_writer

MIB = 1 << 20
NAME = "20260301-021500_3_web"
PACKAGERS = {
    "directory": Packager("directory"),
    "tar": Packager("tar"),
    "tar-gz": Packager("tar", {"compression": "gz", "compression_lvl": 1}),
    "tar-bz2": Packager("tar", {"compression": "bz2", "compression_lvl": 1}),
    "tar-xz": Packager("tar", {"compression": "xz", "compression_lvl": 1}),
    "zstd": Packager("zstd", {"compression_lvl": 1}),
    "zstd-3": Packager("zstd", {"compression_lvl": 3}),
    "repository": Packager("repository", {"compression_lvl": 1}),
}

# An image is its length, and (offset, length) of what is random data in it.
IMAGES = {
    "empty": (0, []),
    "one-byte": (1, [(0, 1)]),
    "odd": (513, [(0, 513)]),
    "a-chunk-and-a-byte": (MIB // 4 + 1, [(0, MIB // 4 + 1)]),
    "dense": (3 * MIB, [(0, 3 * MIB)]),
    "dense-odd": (2 * MIB + 4097, [(0, 2 * MIB + 4097)]),
    "all-hole": (20 * MIB, []),
    "hole-of-a-byte": (1, []),
    "data-at-end": (9 * MIB + 100, [(9 * MIB, 100)]),
    "hole-at-end": (9 * MIB, [(0, 5000)]),
    "over-chunks": (5 * MIB, [(MIB - 4096, 8192), (3 * MIB - 1, 2)]),
    "comb": (4 * MIB, [(start, 4096) for start in range(0, 4 * MIB, 3 * 4096)]),
}


class Package:
    def __init__(self, packager, directory):
        self.packager = packager
        self.directory = directory
        self.buffers = BufferPool(8 * BUFFER_BYTES)

    def writer(self):
        return open_writer(self.packager, self.directory, NAME, CpuShares(2))

    def reader(self):
        return open_reader(self.packager, self.directory, NAME, self.buffers)

    def paths(self, *files):
        return Location.below(self.directory, self.packager, NAME).paths(files)

    def left(self):
        return sorted(path.name for path in self.directory.iterdir())

    async def add(self, writer, image, *, name=None, progress=lambda _: None):
        async with open_image_stream(image, self.buffers) as stream:
            file = in_package(image) if name is None else name
            return await writer.add_disk(file, stream, progress), stream

    async def write(self, *images, name=None):
        async with self.writer() as writer:
            added = {image: await self.add(writer, image, name=name) for image in images}
            await writer.finish()
        return added

    async def restore(self, file, path):
        async with self.reader() as reader, reader.open_disk(file) as stream:
            await write_sparse(stream, path, lambda _: None)
            return stream


def in_package(image):
    return f"{NAME}_{image.name}.raw"


def make_image(path, size_bytes, pieces, seed=7):
    rng = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for offset, length in pieces:
            file.seek(offset)
            file.write(rng.randbytes(length))
    return path
