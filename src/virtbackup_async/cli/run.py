"""Runs a command's work: the one place with an event loop, signals and exit codes.

::

    work  --events-->  RunOutcome  -->  EventThread  -->  renderer, log
      |                  |
      +--errors, signal--+--> Summary, the error's line on stderr, the exit code

The first SIGINT, SIGTERM or SIGHUP cancels the work, which reverts the domains before it ends. The
second one ends the process at once, and reports what stays pending. ``serve`` ends well by the
first SIGINT or SIGTERM, and ignores SIGHUP. SIGTSTP (Ctrl-Z) stops the
process, but never while a guest is frozen (``stopping.py``).
"""

import os
import signal
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import NoReturn

import anyio
import click
from anyio.abc import TaskStatus
from msgspec import Struct, field

from virtbackup_async.cli.failure import say, say_traceback, settle_stdout
from virtbackup_async.cli.options import Settings
from virtbackup_async.cli.own_process import give_back_what_is_large
from virtbackup_async.cli.render.reports import MakeReport, Report
from virtbackup_async.cli.stopping import Stopper
from virtbackup_async.errors import ConfigError
from virtbackup_async.events import Emit, RunInfo, Summary, Warned
from virtbackup_async.files import lacks
from virtbackup_async.reporting.event_log import EventLog, Tee
from virtbackup_async.reporting.event_thread import EventThread, open_log
from virtbackup_async.reporting.interface import Moment, Renderer
from virtbackup_async.reporting.json_lines import JsonLines
from virtbackup_async.reporting.outcome import RunOutcome
from virtbackup_async.version import __version__

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How long a second signal waits for a terminal that may be stuck.
_LAST_WORDS_S = 1.0


class Job(Struct, frozen=True):
    """The work of a command, and what goes with it.

    Attributes:
        work: does what the command is for.
        debug: as the configuration says.
        conclude: called when the work has ended, in whatever way, with the summary so far.
        event_log: gets all events, in addition to the renderer.
        until_stopped: it works until a signal ends it, which is no failure then. It survives the
            end of its terminal.
    """

    work: Callable[[Emit], Awaitable[None]]
    debug: bool = False
    conclude: Callable[[Summary, Emit], Awaitable[None]] | None = None
    event_log: EventLog | None = None
    until_stopped: bool = False


Prepare = Callable[[Emit], Job]


class _Outcome(Struct):
    errors: list[BaseException] = field(default_factory=list)
    signum: int | None = None
    debug: bool = False


def run(settings: Settings, prepare: Prepare, report: MakeReport | None) -> NoReturn:
    """Prepare the job, run it to its end, and exit the process with its code.

    Args:
        settings: what to show, and how.
        prepare: makes the job before there is an event loop; it may emit warnings and raise.
        report: makes the report; None prints none.
    """
    give_back_what_is_large()
    view = Tee(_renderer(settings, report))
    event_thread = EventThread(view, _now)
    run_id = uuid.uuid4().hex
    run_outcome = RunOutcome(event_thread.emit, run_id, monotonic)
    with event_thread, open_log(event_thread.log) as log:
        run_outcome.emit(_run_info(run_id))
        log.setLevel(settings.log_level(debug=settings.debug))
        outcome = _Outcome(debug=settings.debug)
        try:
            job = prepare(run_outcome.emit)
            view.event_log = job.event_log
            outcome.debug = settings.debug or job.debug
            log.setLevel(settings.log_level(debug=outcome.debug))
            options = {"debug": outcome.debug}
            anyio.run(_supervise, job, outcome, run_outcome, event_thread, backend_options=options)
        except KeyboardInterrupt:
            outcome.signum = signal.SIGINT
        except BaseException as error:  # noqa: BLE001 -- whatever it is, it ends in an exit code
            outcome.errors.append(error)
        summary = run_outcome.summary(outcome.errors, outcome.signum)
        event_thread.emit(summary)
    _leave(outcome, summary, event_thread.failure)


def _renderer(settings: Settings, report: MakeReport | None) -> Renderer:
    """Choose JSON lines, silence, the live view or plain lines, in this order of precedence."""
    # If the locale lacks a character of a name, the name is shown escaped.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if settings.json:
        return JsonLines(sys.stdout, sys.stderr)
    return _text_renderer(settings, report() if report else None)


def _text_renderer(settings: Settings, report: Report | None) -> Renderer:
    # They need rich, see render/reports.py.
    from virtbackup_async.cli.render.console import text_console  # noqa: PLC0415 -- see above
    from virtbackup_async.cli.render.live import LiveView  # noqa: PLC0415 -- see above
    from virtbackup_async.cli.render.plain import Plain, Quiet  # noqa: PLC0415 -- see above

    out = text_console(sys.stdout)
    if settings.quiet:
        return Quiet(out, sys.stderr, report)
    if settings.progress and _can_redraw():
        return LiveView(out, text_console(sys.stderr), report)
    return Plain(
        out,
        sys.stderr,
        report,
        progress=settings.progress,
        phases=settings.verbose or settings.debug,
    )


def _can_redraw() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}


def _run_info(run_id: str) -> RunInfo:
    context = click.get_current_context(silent=True)
    command = context.command_path.partition(" ")[2] if context else ""
    return RunInfo(run_id, command, socket.gethostname(), __version__, os.getpid())


def _now() -> Moment:
    return Moment(datetime.now(UTC).astimezone(), monotonic())


async def _supervise(
    job: Job, outcome: _Outcome, run_outcome: RunOutcome, event_thread: EventThread
) -> None:
    """Run the work next to a task that watches for signals; collect errors in ``outcome``."""
    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        stopper = Stopper(run_outcome, event_thread, tasks)
        watch = partial(_watch_signals, until_stopped=job.until_stopped)
        await tasks.start(watch, scope, outcome, stopper, name="signals")
        try:
            with scope:
                await job.work(run_outcome.emit)
                # The work is done: a signal came too late to stop anything.
                outcome.signum = None
            if job.until_stopped:
                outcome.signum = None
        except* Exception as group:  # noqa: BLE001 -- whatever it is, it ends in an exit code
            outcome.errors += _leaves(group)
        for lack in lacks.take_untold():
            run_outcome.emit(Warned(lack))
        await _conclude(job, outcome, run_outcome)
        tasks.cancel_scope.cancel()


async def _conclude(job: Job, outcome: _Outcome, run_outcome: RunOutcome) -> None:
    """Pass the summary on; a signal that arrives meanwhile has nothing left to stop."""
    if job.conclude is None:
        return
    signum = outcome.signum
    try:
        await job.conclude(run_outcome.summary(outcome.errors, signum), run_outcome.emit)
    except Exception as error:  # noqa: BLE001 -- whatever it is, it ends in an exit code
        outcome.errors.append(error)
    outcome.signum = signum


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for child in error.exceptions for leaf in _leaves(child)]
    return [error]


async def _watch_signals(
    scope: anyio.CancelScope,
    outcome: _Outcome,
    stopper: Stopper,
    *,
    until_stopped: bool,
    task_status: TaskStatus[None],
) -> None:
    # nohup and a shell's background jobs ignore some signals on purpose: keep ignoring those.
    signals = (*_SIGNALS, signal.SIGTSTP)
    watched = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]
    with anyio.open_signal_receiver(*watched) as received:
        task_status.started()
        async for signum in received:
            if signum == signal.SIGTSTP:
                stopper.stop()
                continue
            if until_stopped and signum == signal.SIGHUP:
                continue
            if scope.cancel_called:
                _leave_at_once(stopper.run_outcome, stopper.event_thread, signum)
            outcome.signum = signum
            if not until_stopped:
                stopper.run_outcome.emit(
                    Warned(f"{signum.name}: stopping and undoing; once more to leave at once")
                )
            scope.cancel()


def _leave_at_once(
    run_outcome: RunOutcome, event_thread: EventThread, signum: signal.Signals
) -> NoReturn:
    """End the process now; the pending files say what has to be undone."""
    for number in _SIGNALS:
        # If even this gets stuck, a third signal ends the process.
        signal.signal(number, signal.SIG_DFL)
    run_outcome.abandon()
    summary = run_outcome.summary([], signum)
    event_thread.emit(summary)
    event_thread.close(_LAST_WORDS_S)
    _say_error(summary)
    os._exit(summary.exit_code)


def _say_error(summary: Summary) -> None:
    # A configuration may have several problems, a line each. Anywhere else, a line break comes
    # from a foreign name, which must not pass for a line of this program.
    several = summary.exit_code == ConfigError.exit_code
    lines = (summary.error or "").splitlines() if several else [summary.error]
    for line in filter(None, lines):
        say(line)


def _leave(outcome: _Outcome, summary: Summary, lost_view: Exception | None) -> NoReturn:
    """Report the error in one line, and exit."""
    code = summary.exit_code
    _say_error(summary)
    if lost_view is not None and not isinstance(lost_view, BrokenPipeError):
        say(f"the result could not be shown: {lost_view}")
        outcome.errors.append(lost_view)
        code = code or 1
    if outcome.debug:
        for error in outcome.errors:
            say_traceback(error)
    settle_stdout()
    sys.exit(code)
