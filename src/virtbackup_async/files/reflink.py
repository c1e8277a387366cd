"""Copies that share their blocks with the original, on file systems that can, as XFS.

Used by ``images/sinks/sparse.py``. A clone takes moments and no space, and keeps all holes.
"""

import errno
import fcntl
from typing import Final

# linux/fs.h: _IOW(0x94, 9, int); fcntl names it from Python 3.12 on.
_FICLONE: Final = 0x40049409
# Another file system (EXDEV), one without clones (EOPNOTSUPP, ENOTTY, ENOSYS), or two files that
# cannot share: btrfs returns EINVAL if only one of them has checksums.
_REFUSED: Final = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EINVAL, errno.EPERM}
)


def clone(source_fd: int, target_fd: int) -> bool:
    """Make the empty file ``target_fd`` share all of ``source_fd``. Blocks.

    Returns:
        False if that is refused; the target has not changed.

    Raises:
        OSError: it failed half-way, because the file system is full or broken.
    """
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        return False
    return True
