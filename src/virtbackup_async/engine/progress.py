"""The progress of one disk, reported now and then, for backups and restores."""

from typing import Final

from anyio import current_time

from virtbackup_async.events import DiskProgress, Emit
from virtbackup_async.images.stream import DiskStream
from virtbackup_async.packagers.interface import Progress

INTERVAL_S: Final = 0.1


class DiskMeter:
    """Adds up the images of a disk, one after the other; reports at most every ``INTERVAL_S``."""

    def __init__(self, emit: Emit, domain: str, dev: str, total_bytes: int) -> None:
        self.done_bytes = 0
        self._emit = emit
        self._domain = domain
        self._dev = dev
        self._total_bytes = total_bytes
        self._next_s = 0.0
        if total_bytes:
            self._say(0)

    def begin(self, stream: DiskStream) -> Progress:
        """Return the callback for one image; it takes the data bytes so far."""
        if not self._total_bytes:
            self._total_bytes = data_bytes_of(stream)
        return self.on_progress

    def on_progress(self, data_bytes: int) -> None:
        """Report, if the time has come, how much data of the current image is done."""
        if current_time() >= self._next_s:
            self._say(self.done_bytes + data_bytes)

    def end(self, stream: DiskStream) -> None:
        """Add an image that is done."""
        self.add(stream.data_bytes)

    def add(self, data_bytes: int) -> None:
        """Add the data of an image that is done."""
        self.done_bytes += data_bytes
        self._say(self.done_bytes)

    def _say(self, done_bytes: int) -> None:
        total_bytes = max(self._total_bytes, done_bytes)
        self._emit(DiskProgress(self._domain, self._dev, done_bytes, total_bytes))
        self._next_s = current_time() + INTERVAL_S


def data_bytes_of(stream: DiskStream) -> int:
    """Return how much data a stream has; its whole size if only reading it can tell."""
    if stream.data_extents is None:
        return stream.size_bytes
    return sum(extent.length for extent in stream.data_extents)
