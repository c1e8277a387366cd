"""A renderer with a log beside it: what is shown is logged, and a failing log hides nothing."""

from virtbackup_async.events import Event, Warned
from virtbackup_async.reporting.event_log import EventLog
from virtbackup_async.reporting.interface import LogLine, Moment, Renderer


class Tee:
    """The renderer of the event thread; ``event_log`` is set once the configuration is known."""

    def __init__(self, renderer: Renderer) -> None:
        self.event_log: EventLog | None = None
        self._renderer = renderer

    def show(self, event: Event, at: Moment) -> None:
        # The log first: the summary is the last that is shown.
        if self.event_log is not None:
            try:
                self.event_log.show(event, at)
            except OSError as error:
                self._give_up(error, at)
        self._renderer.show(event, at)

    def log(self, line: LogLine, at: Moment) -> None:
        if self.event_log is not None:
            try:
                self.event_log.log(line, at)
            except OSError as error:
                self._give_up(error, at)
        self._renderer.log(line, at)

    def tick(self, at: Moment) -> None:
        self._renderer.tick(at)

    def pause(self) -> None:
        self._renderer.pause()

    def close(self) -> None:
        log, self.event_log = self.event_log, None
        if log is not None:
            log.close()
        self._renderer.close()

    def _give_up(self, error: OSError, at: Moment) -> None:
        self.event_log = None
        self._renderer.show(Warned(f"the log of `log:` ends here: {error.strerror or error}"), at)
