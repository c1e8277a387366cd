"""Runs: pieces of an image that are compressed, and decompressed, independently of each other.

::

    frames of libzstd's   | header, one byte | run |  | header, one byte | run |  | ...
    what is kept of them                     | run |                     | run |

All runs of a disk make one frame (``zstd_frame.py``), so none may lean on what was before it: not
on earlier data, not on an earlier block's tables, not on the three repeat offsets, which a decoder
has from the run before. libzstd starts a frame with the offsets 1, 4 and 8 and counts on them. But
where it compresses in threads, every job but the first does without, since its threads do not wait
for each other; and that a job looks back into the one before can be turned off. So each run is such
a job, and the first job, of one byte, is thrown away.

Used by ``zstd.py``, which has them of ``cpu_shares.py``. Invariant: the runs of a ``RunCompressor``
are independent, for it exists only after it has proved it.
"""

from threading import Lock
from time import sleep
from typing import Final

import zstandard

from virtbackup_async.errors import VirtBackupError
from virtbackup_async.packagers.zstd.frame import LAST_BLOCK, frame_header

MOST_RUN_BYTES: Final = 16 * 1024 * 1024
_FEWEST_RUN_BYTES: Final = 4 * 1024 * 1024
_NO_LOOKING_BACK: Final = 1
# libzstd's thread says that a job is done a moment before it can take the next one. Until then, who
# has one for it asks again and again, on the processor that the thread is waiting for.
_UNTIL_IDLE_S: Final = 50e-6
# The second would use the offsets that a frame starts with, but the first leaves others; and it
# would look back into the first.
_PROOF: Final = (b"abcdefghi" * 500, b"abcdhelloxyzaaaaa" + b"abcdefghi" * 30)


def run_bytes_of(level: int) -> int:
    """How much of a disk is a run: twice the level's window, within bounds."""
    window_log: int = zstandard.ZstdCompressionParameters.from_level(level).window_log
    return min(MOST_RUN_BYTES, max(_FEWEST_RUN_BYTES, 2 << window_log))


class RunCompressor:
    """Compresses one run after the other; blocking, for one thread at a time.

    Raises:
        VirtBackupError: this libzstd makes no independent runs.
    """

    def __init__(self, level: int) -> None:
        self.level = level
        run_bytes = run_bytes_of(level)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level,
            # A match may be as far away as the run is long: it packs better, and costs nothing.
            window_log=window_log_of(run_bytes),
            threads=1,  # none: then it does not work in jobs
            job_size=run_bytes,
            overlap_log=_NO_LOOKING_BACK,
            write_content_size=False,
        )
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters)
        self._prove()

    def compress(self, data: bytes | memoryview) -> bytes:
        """The blocks of a run: of ``data``, which is no longer than a run may be."""
        # A frame for each run: libzstd goes through three times as much memory in a long one.
        frame = self._compressor.compressobj()
        sleep(_UNTIL_IDLE_S)
        frame.compress(b"\0")
        frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        sleep(_UNTIL_IDLE_S)
        started = frame.compress(data)
        return started + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def _prove(self) -> None:
        first, second = map(self.compress, _PROOF)
        size_bytes = 2 * sum(map(len, _PROOF))
        frame = frame_header(0, size_bytes) + second + first + second + first + LAST_BLOCK
        try:
            found = zstandard.ZstdDecompressor().decompress(frame)
        except zstandard.ZstdError:
            found = b""
        if found != (_PROOF[1] + _PROOF[0]) * 2:
            message = f"libzstd {zstandard.ZSTD_VERSION} does not compress independently"
            raise VirtBackupError(message, hint="Install the wheel of zstandard from PyPI.")


def window_log_of(run_bytes: int) -> int:
    """The smallest window that a whole run fits into."""
    return (run_bytes - 1).bit_length()


class RunCompressors:
    """The compressors of a process, each with 20 MiB of memory or more, used again and again.

    There are never more than have been at work at the same time.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._at_rest: list[RunCompressor] = []

    def compress(self, level: int, data: memoryview) -> bytes:
        """The blocks of a run; blocking, for any number of threads."""
        compressor = self._at_rest_of(level) or RunCompressor(level)
        blocks = compressor.compress(data)
        with self._lock:
            self._at_rest.append(compressor)
        return blocks

    def _at_rest_of(self, level: int) -> RunCompressor | None:
        with self._lock:
            found = next((one for one in reversed(self._at_rest) if one.level == level), None)
            if self._at_rest:
                # Where all of them are of another level, one of those makes room for the new one.
                self._at_rest.remove(found or self._at_rest[0])
            return found
