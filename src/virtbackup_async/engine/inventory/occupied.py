"""The space that files of a target take on their file system; holes take none.

In a storage that is no directory of this machine, a file takes its length.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from anyio import to_thread

from virtbackup_async.errors import StorageError
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.repository import open_storage

_BLOCK_BYTES = 512


async def occupied_bytes(files: Iterable[TargetFile]) -> int:
    """Return the space that all these files take together."""
    return await to_thread.run_sync(lambda: sum(occupied_by_each(files).values()))


def occupied_by_each(files: Iterable[TargetFile]) -> dict[TargetFile, int]:
    """Return the space that each of these files takes; 0 if it is missing. Blocks."""
    by_directory: defaultdict[TargetFile, list[TargetFile]] = defaultdict(list)
    for file in files:
        by_directory[file.parent].append(file)
    return {
        file: taken
        for directory, of_it in by_directory.items()
        for file, taken in zip(of_it, _taken_in(directory, of_it), strict=True)
    }


def _taken_in(directory: TargetFile, files: Sequence[TargetFile]) -> list[int]:
    if directory.target.plain_directory is None:
        return _lengths(directory.target, files)
    try:
        statuses = TargetPath.at(directory).statuses([file.name for file in files])
    except OSError:
        return [0 for _ in files]
    return [status.st_blocks * _BLOCK_BYTES if status else 0 for status in statuses]


def _lengths(target: StorageLocation, files: Sequence[TargetFile]) -> list[int]:
    try:
        sizes = open_storage(target).sizes([file.stored_name for file in files])
    except StorageError:
        return [0 for _ in files]
    return [sizes.get(file.stored_name, 0) for file in files]
