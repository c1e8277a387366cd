"""What follows a run, once its outcome is known: its record in the history, metrics, notifications.

``with_config`` passes it every event of the run, ``run`` its summary. A failure here is only a
warning: it changes nothing about the backups.
"""

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from virtbackup_async.catalog.config_copy import save_config_copy
from virtbackup_async.catalog.history import append_run
from virtbackup_async.config.saved_copy import dumps
from virtbackup_async.config.schema import Config
from virtbackup_async.errors import StorageError, VirtBackupError
from virtbackup_async.events import Emit, Event, Summary, Warned
from virtbackup_async.files.mounts import space_of
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.reporting import metrics
from virtbackup_async.reporting.metrics_file import update_metrics
from virtbackup_async.reporting.notification import notify
from virtbackup_async.reporting.run_history import RunHistory, RunIdentity
from virtbackup_async.version import __version__

_COPY: Final = "copy"
"""It writes nothing into the targets that it reads, which may be read-only."""


def _now_s() -> float:
    return datetime.now(UTC).timestamp()


class AfterRun:
    """Collects the events of one run, and passes on its result at the end."""

    def __init__(
        self, config: Config, command: str, *, now_s: Callable[[], float] = _now_s
    ) -> None:
        """Begin to watch a run.

        Args:
            config: the configuration.
            command: its name.
            now_s: the wall clock, in seconds since the epoch.
        """
        self._config = config
        self._command = command
        self._now_s = now_s
        self._events: list[Event] = []
        host = socket.gethostname()
        self._history = RunHistory(RunIdentity(command, host, __version__, now_s()))

    def tap(self, emit: Emit) -> Emit:
        """Return an ``emit`` that also remembers what will be recorded and measured."""

        def emit_and_note(event: Event) -> None:
            self._history.note(event, self._now_s())
            if metrics.counts(event):
                self._events.append(event)
            emit(event)

        return emit_and_note

    async def conclude(self, summary: Summary, emit: Emit) -> None:
        """Record the run in the targets, write the metrics and send the notifications."""
        await self._record(summary, emit)
        path = self._config.metrics_textfile
        if path is not None:
            try:
                now_s = self._now_s()
                samples = metrics.samples_of(self._command, self._events, summary, now_s)
                await update_metrics(path, samples)
            except (OSError, StorageError) as error:
                emit(Warned(f"no metrics were written: {error}"))
        outcome = "done" if summary.ok else "failed"
        title = f"virtbackup {self._command} {outcome} on {socket.gethostname()}"
        warning = await notify(self._config.notify, title, summary)
        if warning is not None:
            emit(Warned(warning))

    async def _record(self, summary: Summary, emit: Emit) -> None:
        by_target: dict[StorageLocation, list[str]] = {}
        for group in self._config.groups.values():
            if group.target is not None:
                by_target.setdefault(group.target, []).append(group.name)
        for target, groups in by_target.items():
            if self._history.concerns(groups, str(target)):
                try:
                    await self._record_in(target, groups, summary)
                except FileNotFoundError:
                    pass  # the run itself has told that the target is missing
                except (OSError, VirtBackupError) as error:
                    emit(Warned(f"the run is not in the history of {target}: {error}"))

    async def _record_in(
        self, target: StorageLocation, groups: list[str], summary: Summary
    ) -> None:
        space = await space_of(target)
        room = None if space is None else (space.used_bytes, space.free_bytes)
        record = self._history.record(summary, self._now_s(), groups, room, str(target))
        has_backups = self._history.has_backups_of(groups)
        has_copies = self._history.has_copies_in(str(target))
        await append_run(target, record, create=has_backups or has_copies)
        if not self._config.of_target and self._command != _COPY:
            copy = dumps(self._config, record.host)
            await save_config_copy(target, record.host, copy, create=has_backups)
