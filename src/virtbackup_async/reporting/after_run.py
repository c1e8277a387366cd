"""What follows a run, once its outcome is known: metrics and notifications.

``configured`` hands it every event of the run, ``run`` its summary. Whatever fails here is a
warning: the backups are made, or not, all the same.
"""

import socket
from datetime import UTC, datetime
from pathlib import Path

import anyio
from anyio import to_thread

from virtbackup_async.config.schema import Config
from virtbackup_async.errors import StorageError
from virtbackup_async.events import Emit, Event, Summary, Warned
from virtbackup_async.files.closing import close
from virtbackup_async.files.durable import file_at, write_atomically
from virtbackup_async.reporting import metrics
from virtbackup_async.reporting.notification import notify

# The node exporter is another user.
METRICS_MODE = 0o644


class AfterRun:
    """Remembers what happens in one run of a command, and tells others of it at the end."""

    def __init__(self, config: Config, command: str) -> None:
        self._config = config
        self._command = command
        self._events: list[Event] = []

    def tap(self, emit: Emit) -> Emit:
        """Return an ``emit`` that also remembers what there will be metrics of."""

        def emit_and_note(event: Event) -> None:
            if metrics.counts(event):
                self._events.append(event)
            emit(event)

        return emit_and_note

    async def conclude(self, summary: Summary, emit: Emit) -> None:
        """Write the metrics and send the notifications."""
        path = self._config.metrics_textfile
        if path is not None:
            try:
                await self._write_metrics(path, summary)
            except (OSError, StorageError) as error:
                emit(Warned(f"no metrics were written: {error}"))
        outcome = "done" if summary.ok else "failed"
        title = f"virtbackup {self._command} {outcome} on {socket.gethostname()}"
        warning = await notify(self._config.notify, title, summary)
        if warning is not None:
            emit(Warned(warning))

    async def _write_metrics(self, path: Path, summary: Summary) -> None:
        try:
            text = await anyio.Path(path).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            await to_thread.run_sync(_create, path)
            text = ""
        now_s = datetime.now(UTC).timestamp()
        samples = metrics.loads(text)
        samples.update(metrics.samples_of(self._command, self._events, summary, now_s))
        await write_atomically(path, metrics.dumps(samples).encode(), keep_owner=True)


def _create(path: Path) -> None:
    """Make the empty file; whatever the umask, another user has to read it."""
    close(file_at(path).create(mode=METRICS_MODE))
