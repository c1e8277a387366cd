"""Copies that share their blocks with the original, where the file system can (btrfs, XFS, ...).

Used by ``sparse.py``. A clone takes moments and no space, and its holes are those of the original.
"""

import errno
import fcntl
from typing import Final

# linux/fs.h: _IOW(0x94, 9, int); fcntl names it from Python 3.12 on.
_FICLONE: Final = 0x40049409
# Another file system (EXDEV), one that cannot (EOPNOTSUPP, ENOTTY, ENOSYS), or a pair of files that
# may not share: btrfs says EINVAL where one has checksums and the other has none.
_REFUSED: Final = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EINVAL, errno.EPERM}
)


def clone(source_fd: int, target_fd: int) -> bool:
    """Make the empty file ``target_fd`` share all of ``source_fd``. Blocks.

    Returns:
        False if that is refused; the target is as it was.

    Raises:
        OSError: it failed on the way, because the file system is full or broken.
    """
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return False
    return True
