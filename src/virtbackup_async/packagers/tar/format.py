r"""Tar headers as this program writes and reads them: plain members, and sparse ones.

A member with holes uses GNU's sparse format 1.0 in a PAX archive, which GNU tar, libarchive and
Python's tarfile read::

    PAX header   GNU.sparse.major=1 .minor=0 .name=<file> .realsize=<length of the image>
    header       GNUSparseFile.0/<file>, size = map + data
    map          "<count>\n" then "<offset>\n<length>\n" for each data extent, padded to 512
    data         the extents' bytes, one after the other, padded to 512

In an uncompressed archive, data starts at a multiple of 4096, so that direct I/O can write it. A
comment of spaces in the PAX header, which no program reads, fills the gap.
"""

import tarfile
from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import Final

from virtbackup_async.files.direct_io import ALIGNMENT
from virtbackup_async.model.extent import Extent

BLOCK: Final = tarfile.BLOCKSIZE
_SIZE_FIELD: Final = slice(124, 136)
_CHECKSUM_FIELD: Final = slice(148, 156)
_LARGEST_OCTAL_SIZE: Final = 8**11 - 1


class Layout:
    """The positions of data extents that are stored one after the other, without holes."""

    def __init__(self, extents: Iterable[Extent]) -> None:
        self.extents = tuple(extents)
        self._starts = [extent.start for extent in self.extents]
        self._positions = [0, *accumulate(extent.length for extent in self.extents)]

    @property
    def length_bytes(self) -> int:
        """The length of the stored data."""
        return self._positions[-1]

    def position(self, offset: int) -> int:
        """Return the stored position of the image's byte ``offset``, which must be in an extent."""
        index = bisect_right(self._starts, offset) - 1
        return self._positions[index] + offset - self._starts[index]


def padding(length_bytes: int, unit: int = BLOCK) -> bytes:
    """Return the zeros that fill ``length_bytes`` up to a multiple of ``unit``."""
    return bytes(-length_bytes % unit)


def end_of_archive(length_bytes: int) -> bytes:
    """Return the zeros that end an archive of ``length_bytes``: two blocks, and up to a record."""
    end = bytes(2 * BLOCK)
    return end + padding(length_bytes + len(end), tarfile.RECORDSIZE)


def member_head(
    file: str, size_bytes: int, layout: Layout, mtime_s: int, position: int | None = None
) -> bytes:
    """Return everything that precedes a member's data.

    Args:
        file: the member's name.
        size_bytes: the length of the image.
        layout: of its data.
        mtime_s: its time of modification.
        position: where in the archive it starts, if its data must start at a multiple of 4096.
    """
    head = _head(file, size_bytes, layout, mtime_s)
    comment_bytes = 0
    while position is not None and (position + len(head)) % ALIGNMENT:
        comment_bytes += BLOCK
        head = _head(file, size_bytes, layout, mtime_s, comment_bytes)
    return head


def _head(
    file: str, size_bytes: int, layout: Layout, mtime_s: int, comment_bytes: int = 0
) -> bytes:
    info = tarfile.TarInfo(file)
    info.mode = 0o600
    info.mtime = mtime_s
    info.pax_headers = {"comment": " " * comment_bytes} if comment_bytes else {}
    if layout.length_bytes == size_bytes:
        return _header(info, size_bytes)
    info.name = "GNUSparseFile.0/" + file.encode("ascii", "replace").decode()[-80:]
    info.pax_headers |= {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": file,
        "GNU.sparse.realsize": str(size_bytes),
    }
    sparse_map = _sparse_map(size_bytes, layout)
    return _header(info, len(sparse_map) + layout.length_bytes) + sparse_map


def _sparse_map(size_bytes: int, layout: Layout) -> bytes:
    entries = [(extent.start, extent.length) for extent in layout.extents]
    if not entries or sum(entries[-1]) < size_bytes:
        entries.append((size_bytes, 0))  # as GNU tar marks the end of a last hole
    lines = [str(len(entries)), *(f"{start}\n{length}" for start, length in entries), ""]
    text = "\n".join(lines).encode()
    return text + padding(len(text))


def _header(info: tarfile.TarInfo, size_bytes: int) -> bytes:
    """Return the PAX headers and the header, with the size always in the header itself.

    tarfile would put sizes from 8 GiB into a PAX record. For a sparse member it would then read
    the wrong length (the image's, not the stored one), and miss the members that follow.
    """
    head = bytearray(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
    block = head[-BLOCK:]
    if size_bytes <= _LARGEST_OCTAL_SIZE:
        block[_SIZE_FIELD] = b"%011o\0" % size_bytes
    else:
        block[_SIZE_FIELD] = b"\x80" + size_bytes.to_bytes(11, "big")
    block[_CHECKSUM_FIELD] = b" " * 8
    block[_CHECKSUM_FIELD] = b"%06o\0 " % sum(block)
    head[-BLOCK:] = block
    return bytes(head)
