"""The deduplicating store: equal chunks are stored once for all backups of a target."""

import os

# numpy's BLAS starts a thread a CPU when it is loaded, 70 ms of one, and nothing here needs it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
