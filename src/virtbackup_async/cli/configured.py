"""Jobs that need the configuration: read before there is a loop, its warnings told."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from virtbackup_async.cli.io_priority import take_io_priority
from virtbackup_async.cli.run import Job, Prepare
from virtbackup_async.config.loading import load_config
from virtbackup_async.config.schema import Config
from virtbackup_async.events import Emit, Warned
from virtbackup_async.reporting.after_run import Aftermath
from virtbackup_async.reporting.event_log import EventLog, open_event_log

ConfiguredWork = Callable[[Config, Emit], Awaitable[None]]


def configured(path: Path | None, work: ConfiguredWork, *, told: str | None = None) -> Prepare:
    """What ``run`` needs, for work that takes the configuration.

    Args:
        path: the configuration file; None to look in the usual places.
        work: the command's own.
        told: the command's name, if metrics, notifications and the log shall tell of it: one that
            is run at night, with the I/O priority of the configuration.
    """

    def prepare(emit: Emit) -> Job:
        config = load_config(path)
        aftermath = Aftermath(config, told) if told else None
        if told:
            take_io_priority(config.io_priority, emit)

        async def watched(emit: Emit) -> None:
            # Here, and not before: the log that they belong into is open now.
            for warning in config.warnings:
                emit(Warned(warning))
            await work(config, aftermath.tap(emit) if aftermath else emit)

        return Job(
            watched,
            debug=config.debug,
            conclude=aftermath.conclude if aftermath else None,
            event_log=_event_log(config, emit) if told else None,
        )

    return prepare


def _event_log(config: Config, emit: Emit) -> EventLog | None:
    """A log that cannot be opened must not keep anybody from making a backup."""
    try:
        return open_event_log(config.log)
    except OSError as error:
        emit(Warned(f"no log is written: {config.log.file or 'journald'}: {error.strerror}"))
        return None
