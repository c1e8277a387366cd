"""The space that files of a target take on their file system; holes take none."""

from collections.abc import Iterable
from pathlib import Path

from anyio import to_thread

from virtbackup_async.files.target_path import TargetPath

_BLOCK_BYTES = 512


async def occupied_bytes(paths: Iterable[Path]) -> int:
    """Return the space that all these files take together."""
    return await to_thread.run_sync(lambda: sum(map(occupied_by, paths)))


def occupied_by(path: Path) -> int:
    """Return the space that a file takes; 0 if it is missing. Blocks."""
    try:
        return TargetPath.in_domain(path).status().st_blocks * _BLOCK_BYTES
    except OSError:
        return 0
