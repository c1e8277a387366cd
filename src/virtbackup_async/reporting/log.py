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
        self._post(LogLine(record.levelno, f"{record.name}: {self.format(record)}"))


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
