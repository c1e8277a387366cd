"""The space that files of a target take on their file system; holes take none."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from anyio import to_thread

from virtbackup_async.files.target_path import TargetPath

_BLOCK_BYTES = 512


async def occupied_bytes(paths: Iterable[Path]) -> int:
    """Return the space that all these files take together."""
    return await to_thread.run_sync(lambda: sum(occupied_by_each(paths).values()))


def occupied_by_each(paths: Iterable[Path]) -> dict[Path, int]:
    """Return the space that each of these files takes; 0 if it is missing. Blocks."""
    by_directory: defaultdict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        by_directory[path.parent].append(path)
    return {
        path: taken
        for directory, files in by_directory.items()
        for path, taken in zip(files, _taken_in(directory, files), strict=True)
    }


def _taken_in(directory: Path, files: Sequence[Path]) -> list[int]:
    try:
        statuses = TargetPath.of(directory, 1).statuses([path.name for path in files])
    except OSError:
        return [0 for _ in files]
    return [status.st_blocks * _BLOCK_BYTES if status else 0 for status in statuses]
