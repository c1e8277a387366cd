"""Passes events from the loop to the renderer's thread, so that no terminal delays a backup.

A terminal stopped with Ctrl-S, or a pipe that nobody reads, blocks its writer. If that were the
event loop, a guest could stay frozen until somebody presses a key. So ``emit`` only appends::

    loop, threads  --emit-->  queue  --one thread-->  renderer  -->  stdout, stderr

The queue is bounded: one progress event for each disk (a newer one replaces the older one), a fixed
number of log lines, and the other events, a few for each disk of the run.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Self

from msgspec import Struct, field

from virtbackup_async.events import DiskProgress, Event, RepositoryProgress
from virtbackup_async.reporting.interface import LogLine, Moment, Renderer

Clock = Callable[[], Moment]

_TICK_S = 0.1
_MAX_LOG_LINES = 2000


class _Waiting(Struct):
    """An item of the queue; a newer progress event takes over its place."""

    item: Event | LogLine
    at: Moment


def _subject(event: DiskProgress | RepositoryProgress) -> tuple[str, ...]:
    if isinstance(event, RepositoryProgress):
        return (event.target,)
    return event.domain, event.disk


class _Queue(Struct):
    items: deque[_Waiting] = field(default_factory=deque)
    progress: dict[tuple[str, ...], _Waiting] = field(default_factory=dict)
    log_lines: int = 0

    def add_event(self, event: Event, at: Moment) -> None:
        if isinstance(event, DiskProgress | RepositoryProgress):
            key = _subject(event)
            if (waiting := self.progress.get(key)) is not None:
                waiting.item, waiting.at = event, at
                return
            self.progress[key] = _Waiting(event, at)
            self.items.append(self.progress[key])
        else:
            self.items.append(_Waiting(event, at))

    def add_log(self, line: LogLine, at: Moment) -> None:
        if self.log_lines < _MAX_LOG_LINES:
            self.log_lines += 1
            self.items.append(_Waiting(line, at))

    def take_all(self) -> deque[_Waiting]:
        taken, self.items = self.items, deque()
        self.progress.clear()
        self.log_lines = 0
        return taken


class EventThread:
    """A context manager around the renderer's thread; any thread may call ``emit`` and ``log``.

    Attributes:
        failure: the first error of the renderer; nothing is rendered after it. The run continues:
            a lost view is no reason to lose a backup.
    """

    def __init__(self, renderer: Renderer, clock: Clock) -> None:
        self.failure: Exception | None = None
        self._renderer = renderer
        self._clock = clock
        self._queue = _Queue()
        self._closing = False
        self._pausing = False
        self._paused = threading.Event()
        self._changed = threading.Condition()
        # A daemon thread: a reader that never reads must not keep a finished process alive.
        self._thread = threading.Thread(target=self._run, name="renderer", daemon=True)

    def emit(self, event: Event) -> None:
        """Add an event; never waits for the output."""
        with self._changed:
            self._queue.add_event(event, self._clock())
            self._changed.notify()

    def log(self, line: LogLine) -> None:
        """Add a log line; drop it if the queue has too many."""
        with self._changed:
            self._queue.add_log(line, self._clock())
            self._changed.notify()

    def pause(self, timeout_s: float) -> bool:
        """Render the queue, and leave the terminal as it was found until ``resume``.

        Returns False if that was not done in time, because the reader does not read.
        """
        with self._changed:
            self._pausing = True
            self._changed.notify()
        return self._paused.wait(timeout_s)

    def resume(self) -> None:
        """Continue after ``pause``."""
        with self._changed:
            self._pausing = False
            self._paused.clear()
            self._changed.notify()

    def close(self, timeout_s: float | None = None) -> bool:
        """Render the queue and end the thread. Returns False if it did not end in time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        closing = False
        while not closing:
            with self._changed:
                if not (self._queue.items or self._closing or self._pausing):
                    self._changed.wait(_TICK_S)
                taken, closing, pausing = self._queue.take_all(), self._closing, self._pausing
            self._guarded(partial(self._render, taken))
            if pausing and not closing:
                self._stand_still()
        self._guarded(self._renderer.close)

    def _stand_still(self) -> None:
        self._guarded(self._renderer.pause)
        with self._changed:
            if self._pausing:
                self._paused.set()
            while self._pausing and not self._closing:
                self._changed.wait()

    def _render(self, taken: deque[_Waiting]) -> None:
        for waiting in taken:
            if isinstance(waiting.item, LogLine):
                self._renderer.log(waiting.item, waiting.at)
            else:
                self._renderer.show(waiting.item, waiting.at)
        self._renderer.tick(self._clock())

    def _guarded(self, write: Callable[[], None]) -> None:
        if self.failure is None:
            try:
                write()
            except Exception as error:  # noqa: BLE001 -- kept, and reported when the run has ended
                self.failure = error


class _Forward(logging.Handler):
    def __init__(self, post: Callable[[LogLine], None]) -> None:
        super().__init__()
        self._post = post

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # A line of this program says what it is about; a module's name tells an admin nothing.
        is_own = record.name.partition(".")[0] == __package__.partition(".")[0]
        self._post(LogLine(record.levelno, text if is_own else f"{record.name}: {text}"))


@contextmanager
def open_log(post: Callable[[LogLine], None]) -> Iterator[logging.Logger]:
    """Send all logging and Python's warnings to ``post``; yields the root logger.

    Log lines go the way of the events, so they and the live view never write over each other.
    """
    root, handler, before = logging.getLogger(), _Forward(post), logging.getLogger().level
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield root
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(handler)
        root.setLevel(before)
