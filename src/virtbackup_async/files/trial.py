"""Finds the features that the file system of a target lacks, with two temporary files."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from virtbackup_async.files import lacks
from virtbackup_async.files.lacks import Lack
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.files.target_path import FILE_MODE, TargetPath

_OTHER_MODE = 0o640


def lacks_of(target: Path) -> list[Lack]:
    """Return the features that the file system lacks; remove the files again. Blocks.

    Raises:
        StorageError: it cannot be written to, or failed.
    """
    place = TargetPath(target).temporary()
    try:
        return list(_tried(place))
    except OSError as error:
        raise storage_error("use", target, error) from error


def _tried(place: TargetPath) -> Iterator[Lack]:
    fd = place.claim()
    try:
        if not _keeps_mode(fd):
            yield Lack.MODES
        if _is_refused(lambda: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)):
            yield Lack.LOCKS
        second = place.parent.temporary()
        try:
            if _is_refused(lambda: place.link(second.name)):
                yield Lack.LINKS
        finally:
            second.drop()
        directory = place.parent.open_directory()
        try:
            if _is_refused(lambda: os.fsync(directory)):
                yield Lack.SYNC
        finally:
            close(directory)
    finally:
        close(fd)
        place.drop()


def _keeps_mode(fd: int) -> bool:
    with suppress(OSError):
        os.fchmod(fd, _OTHER_MODE)
        is_kept = os.fstat(fd).st_mode & 0o777 == _OTHER_MODE
        os.fchmod(fd, FILE_MODE)
        return is_kept
    return False


def _is_refused(call: Callable[[], None]) -> bool:
    try:
        call()
    except OSError as error:
        if error.errno in lacks.FAILURES:
            raise
        return True
    return False
