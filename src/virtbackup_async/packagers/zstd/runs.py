"""Runs: parts of an image that are compressed and decompressed independently of each other.

::

    frames of libzstd   | header, one byte | run |  | header, one byte | run |  | ...
    kept of them                           | run |                     | run |

All runs of a disk make one frame (``frame.py``), so no run may depend on what precedes it: not on
earlier data, not on an earlier block's tables, and not on the three repeat offsets, which a decoder
keeps from the previous run. libzstd starts a frame with the offsets 1, 4 and 8 and relies on them.
But when it compresses in threads, every job except the first does without them, because its threads
do not wait for each other. A job's references to the previous one can be turned off as well. Each
run is therefore such a job, and the first job, of one byte, is dropped.

Used by ``writer.py``. Invariant: the runs of a ``RunCompressor`` are independent; its constructor
proves it.
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
# libzstd's thread reports a job as done a moment before it can take the next one. Until then the
# caller would ask again and again, on the processor that the thread is waiting for.
_UNTIL_IDLE_S: Final = 50e-6
# The second would use the offsets that a frame starts with, but the first leaves other ones. The
# second would also refer back to the first.
_PROOF: Final = (b"abcdefghi" * 500, b"abcdhelloxyzaaaaa" + b"abcdefghi" * 30)


def run_bytes_of(level: int) -> int:
    """Return the length of a run: twice the level's window, within bounds."""
    window_log: int = zstandard.ZstdCompressionParameters.from_level(level).window_log
    return min(MOST_RUN_BYTES, max(_FEWEST_RUN_BYTES, 2 << window_log))


class RunCompressor:
    """Compresses one run after the other. Blocks; for one thread at a time.

    Raises:
        VirtBackupError: this libzstd cannot make independent runs.
    """

    def __init__(self, level: int) -> None:
        self.level = level
        run_bytes = run_bytes_of(level)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level,
            # Matches can be as far away as the run is long: this compresses better at no cost.
            window_log=window_log_of(run_bytes),
            threads=1,  # none: then it does not work in jobs
            job_size=run_bytes,
            overlap_log=_NO_LOOKING_BACK,
            write_content_size=False,
        )
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters)
        self._prove()

    def compress(self, data: bytes | memoryview) -> bytes:
        """Return the blocks of a run of ``data``, which is no longer than a run can be."""
        # A frame for each run: libzstd would use three times as much memory for a long one.
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
    """Return the smallest window that a complete run fits into."""
    return (run_bytes - 1).bit_length()


class RunCompressors:
    """Compressors that are reused, because each has 20 MiB of memory or more.

    There are never more of them than have worked at the same time.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._at_rest: list[RunCompressor] = []

    def compress(self, level: int, data: memoryview) -> bytes:
        """Return the blocks of a run. Blocks; for any number of threads."""
        compressor = self._at_rest_of(level) or RunCompressor(level)
        blocks = compressor.compress(data)
        with self._lock:
            self._at_rest.append(compressor)
        return blocks

    def _at_rest_of(self, level: int) -> RunCompressor | None:
        with self._lock:
            found = next((one for one in reversed(self._at_rest) if one.level == level), None)
            if self._at_rest:
                # If all have another level, the new one replaces one of them.
                self._at_rest.remove(found or self._at_rest[0])
            return found
