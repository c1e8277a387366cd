"""Send the log to the event thread: log lines and the live view never write over each other."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from virtbackup_async.reporting.interface import LogLine


class _Forward(logging.Handler):
    def __init__(self, post: Callable[[LogLine], None]) -> None:
        super().__init__()
        self._post = post

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # A line of our own says what it is about; the name of a module tells an admin nothing.
        is_ours = record.name.partition(".")[0] == __package__.partition(".")[0]
        self._post(LogLine(record.levelno, text if is_ours else f"{record.name}: {text}"))


@contextmanager
def open_log(post: Callable[[LogLine], None]) -> Iterator[logging.Logger]:
    """Forward all logging and Python's warnings to ``post``; yields the root logger."""
    root, handler, before = logging.getLogger(), _Forward(post), logging.getLogger().level
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield root
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(handler)
        root.setLevel(before)
