"""Locations of chunks, sorted by their order on disk and joined into runs.

::

    pack    | head | a | b | unneeded | c |        | d |          | e | ...
    runs           |       one read      |         |     another     |

Used by ``check.py`` and ``read_ahead.py``. Chunks that are close together are read at once,
together with the gaps between them. A run has at most some MiB. Pure.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from virtbackup_async.repository.format.chunks import ID_BYTES
from virtbackup_async.repository.format.index_format import Records

RUN_BYTES: Final = 8 * 1024 * 1024
# A gap between two chunks is read as well up to this length.
GAP_BYTES: Final = 1 << 20
# The pack, the location in it, the segment, the number of the record, and the chunk's id.
PLACE: Final = np.dtype(
    [("pack", "<u4"), ("offset", "<u4"), ("length", "<u4"), ("segment", "<u4"), ("number", "<u4"),
     ("id", "u1", ID_BYTES)]
)  # fmt: skip

Places = NDArray[np.void]


class Run(Struct, frozen=True):
    """Places of one pack that are read at once, ascending; at least one."""

    pack: int
    places: Places

    @property
    def start(self) -> int:
        return int(self.places["offset"][0])

    @property
    def end(self) -> int:
        return int(self.places["offset"][-1]) + int(self.places["length"][-1])

    @property
    def data_bytes(self) -> int:
        """The length of the chunks, without gaps."""
        return int(self.places["length"].sum())


def places_of(
    segment: int, numbers: NDArray[np.int64], packs: NDArray[np.uint32], records: Records
) -> Places:
    """Return the places that records of a segment name.

    Args:
        segment: its number.
        numbers: the numbers of the records in it.
        packs: for each record, the number of its pack among all packs.
        records: the records.
    """
    places = np.empty(len(numbers), dtype=PLACE)
    places["pack"], places["segment"], places["number"] = packs, segment, numbers
    places["offset"], places["length"] = records["offset"], records["length"]
    places["id"] = np.ascontiguousarray(records["id"]).view(np.uint8)
    return places


def runs_of(places: Places, most_bytes: int | None = None) -> Iterator[Run]:
    """Sort places, and yield them as runs, none much longer than ``most_bytes``, or the usual."""
    run_bytes = most_bytes or RUN_BYTES
    if not len(places):
        return
    places = places[np.lexsort((places["offset"], places["pack"]))]
    starts = places["offset"].astype(np.int64)
    ends = starts + places["length"]
    is_other = places["pack"][1:] != places["pack"][:-1]
    is_far = starts[1:] - ends[:-1] > GAP_BYTES
    is_full = starts[1:] // run_bytes != starts[:-1] // run_bytes
    cuts = [0, *(np.flatnonzero(is_other | is_far | is_full) + 1).tolist(), len(places)]
    for first, end in pairwise(cuts):
        yield Run(int(places["pack"][first]), places[first:end])
