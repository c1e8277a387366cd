"""Places of chunks, put into the order in which they lie on disk, and joined into runs.

::

    pack    | head | a | b | dead ... | c |        | d |          | e | ...
    runs           |       one read      |         |     another     |

Used by ``checking``: what is close together is read at once, with what lies between, and a run has
some MiB at most. Pure.
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
# What is not wanted between two chunks is read over up to this length.
GAP_BYTES: Final = 1 << 20
# Which pack, where in it; of which segment's which record; and the chunk's id.
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


def places_of(
    segment: int, numbers: NDArray[np.int64], packs: NDArray[np.uint32], records: Records
) -> Places:
    """Return the places that records of a segment name.

    Args:
        segment: which.
        numbers: of the records in it.
        packs: for each record the number of its pack, among all packs.
        records: these.
    """
    places = np.empty(len(numbers), dtype=PLACE)
    places["pack"], places["segment"], places["number"] = packs, segment, numbers
    places["offset"], places["length"] = records["offset"], records["length"]
    places["id"] = np.ascontiguousarray(records["id"]).view(np.uint8)
    return places


def runs_of(places: Places) -> Iterator[Run]:
    """Sort places, and give them by runs."""
    if not len(places):
        return
    places = places[np.lexsort((places["offset"], places["pack"]))]
    starts = places["offset"].astype(np.int64)
    ends = starts + places["length"]
    is_other = places["pack"][1:] != places["pack"][:-1]
    is_far = starts[1:] - ends[:-1] > GAP_BYTES
    is_full = starts[1:] // RUN_BYTES != starts[:-1] // RUN_BYTES
    cuts = [0, *(np.flatnonzero(is_other | is_far | is_full) + 1).tolist(), len(places)]
    for first, end in pairwise(cuts):
        yield Run(int(places["pack"][first]), places[first:end])
