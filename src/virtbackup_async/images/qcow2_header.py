"""The first bytes of a qcow2 image, as far as they say what can be kept in it.

Read by hand: ``qemu-img info`` takes a process, and this is looked at before every backup. Source:
QEMU's docs/interop/qcow2.txt, "Header".
"""

import struct
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct(">4sI")
_MAGIC: Final = b"QFI\xfb"
# Dirty bitmaps are an extension of it; version 2 is `compat=0.10`.
_VERSION_WITH_BITMAPS: Final = 3


def can_keep_bitmaps(path: Path) -> bool:
    """Tell whether a qcow2 image is of a version with bitmaps. Blocks.

    What cannot be read is taken for one: QEMU may be able to, and will say.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_HEADER.size)
    except OSError:
        return True
    if len(data) < _HEADER.size:
        return False
    magic, version = _HEADER.unpack(data)
    return bool(magic == _MAGIC and version >= _VERSION_WITH_BITMAPS)
