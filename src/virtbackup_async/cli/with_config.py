"""Runs a command that needs the configuration, which is read before there is an event loop."""

from collections.abc import Awaitable, Callable
from typing import NoReturn

from virtbackup_async.api.virtbackup import VirtBackup, open_virtbackup
from virtbackup_async.cli.options import Settings
from virtbackup_async.cli.own_process import take_io_priority
from virtbackup_async.cli.page_after_run import write_page_after_run
from virtbackup_async.cli.render.reports import MakeReport
from virtbackup_async.cli.run import Job, Prepare, run
from virtbackup_async.config.schema import Config
from virtbackup_async.events import Emit, Summary, Warned
from virtbackup_async.reporting.after_run import AfterRun
from virtbackup_async.reporting.event_log import EventLog, open_event_log

Work = Callable[[VirtBackup], Awaitable[object]]


def run_with_config(
    settings: Settings,
    work: Work,
    report: MakeReport | None,
    *,
    reports_as: str | None = None,
    until_stopped: bool = False,
) -> NoReturn:
    """Run ``work`` as ``run`` does, with the configuration; see ``configured``."""
    prepare = configured(
        settings.load_config, work, reports_as=reports_as, until_stopped=until_stopped
    )
    run(settings, prepare, report)


def configured(
    load: Callable[[], Config],
    work: Work,
    *,
    reports_as: str | None = None,
    until_stopped: bool = False,
) -> Prepare:
    """Return a function that reads the configuration and makes the job.

    Args:
        load: reads the configuration; may raise.
        work: calls a method of the opened ``VirtBackup``.
        reports_as: the command's name in metrics, notifications and the log, for commands that run
            at night; they also take the I/O priority of the configuration. None reports nothing.
        until_stopped: see ``Job``.
    """

    def prepare(emit: Emit) -> Job:
        config = load()
        after_run = AfterRun(config, reports_as) if reports_as else None
        if reports_as:
            take_io_priority(config.io_priority, emit)

        async def watched(emit: Emit) -> None:
            # Warnings are emitted only now, because the log that they belong in is open now.
            on_event = after_run.tap(emit) if after_run else emit
            async with open_virtbackup(config, on_event=on_event) as vb:
                await work(vb)

        async def conclude(summary: Summary, emit: Emit) -> None:
            if after_run is not None:
                await after_run.conclude(summary, emit)
                await write_page_after_run(config, summary, emit)

        return Job(
            watched,
            debug=config.debug,
            conclude=conclude if after_run else None,
            event_log=_event_log(config, emit) if reports_as else None,
            until_stopped=until_stopped,
        )

    return prepare


def _event_log(config: Config, emit: Emit) -> EventLog | None:
    """Open the log; if that fails, warn, because a backup matters more."""
    try:
        return open_event_log(config.log)
    except OSError as error:
        emit(Warned(f"no log is written: {config.log.file or 'journald'}: {error.strerror}"))
        return None
