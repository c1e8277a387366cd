"""Updates the file of metrics, for the node exporter, which runs as another user."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread

from virtbackup_async.files.durable import file_at, write_atomically
from virtbackup_async.files.refusals import close
from virtbackup_async.reporting import metrics
from virtbackup_async.reporting.metrics import Sample

METRICS_MODE: Final = 0o644


async def update_metrics(
    path: Path, samples: Iterable[tuple[Sample, float]], *, replaced: Iterable[str] = ()
) -> None:
    """Write samples into the file, beside those of earlier runs.

    Args:
        path: the file; it is created if it is missing.
        samples: of this run.
        replaced: names of metrics of which no earlier sample stays.

    Raises:
        OSError: the file cannot be read.
        StorageError: it cannot be written.
    """
    try:
        text = (await anyio.Path(path).read_bytes()).decode(errors="replace")
    except FileNotFoundError:
        await to_thread.run_sync(_create, path)
        text = ""
    gone = frozenset(replaced)
    kept = {key: value for key, value in metrics.loads(text).items() if key[0] not in gone}
    kept.update(samples)
    await write_atomically(path, metrics.dumps(kept).encode(), keep_owner=True)


def _create(path: Path) -> None:
    """Create the empty file; another user must be able to read it, whatever the umask."""
    close(file_at(path).create(mode=METRICS_MODE))
