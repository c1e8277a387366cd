"""Merges segments of the index: chooses them, and makes the records of the merged one.

::

    segments   | a  d  f | k  m  |     all are cut at the same ids, so that a part of each fits
               | b  d    | l     |     into memory; equal parts are joined and sorted
    merged     | a b d f | k l m |     equal records of several segments are written once

Called by the prune, and by the writer for its own segments. A lookup reads all segments, so there
must not be one for each night. A segment stays if it is more than twice as large as all smaller
ones together. So 40 million chunks are in at most 16 segments, and a record is written again only
when its segment has grown by half.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from virtbackup_async.repository.format import index_format as wire
from virtbackup_async.repository.index.segment_writer import Content
from virtbackup_async.repository.index.segments import Segment

_RECORDS_A_PART: Final = 1 << 18


def worth_merging(segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments to be replaced by one; none if there is nothing to gain."""
    ordered = sorted(segments, key=lambda segment: segment.shape.records)
    smaller = end = 0
    for place, segment in enumerate(ordered):
        if segment.shape.records <= 2 * smaller:
            end = place + 1
        smaller += segment.shape.records
    return ordered[:end]


def merged(segments: Sequence[Segment], without: frozenset[bytes] = frozenset()) -> Content:
    """Return the content of a segment that replaces others.

    Args:
        segments: the others; they must stay open until the new one is written.
        without: packs that were removed, whose records are left out.
    """
    packs = list({pack: None for segment in segments for pack in segment.packs
                  if pack not in without})  # fmt: skip
    numbers = {pack: number for number, pack in enumerate(packs)}
    renumber = [
        np.array([numbers.get(pack, len(packs)) for pack in segment.packs], dtype=np.uint32)
        for segment in segments
    ]
    total = sum(segment.shape.records for segment in segments)
    return Content(packs, _parts(segments, renumber, len(packs), total), total)


def _parts(
    segments: Sequence[Segment], renumber: Sequence[NDArray[np.uint32]], packs: int, total: int
) -> Iterator[wire.Records]:
    bits = (total // _RECORDS_A_PART).bit_length()
    cuts = [segment.cuts(bits) for segment in segments]
    for part in range(1 << bits):
        pieces = []
        for segment, numbers, cut in zip(segments, renumber, cuts, strict=True):
            records = segment.read_records(cut[part], cut[part + 1]).copy()
            records["pack"] = numbers[records["pack"]]
            pieces.append(records[records["pack"] < packs])
        # Without the type, numpy would convert the ids to this machine's byte order.
        yield _sorted(np.concatenate(pieces, dtype=wire.RECORD_TYPE))


def _sorted(records: wire.Records) -> wire.Records:
    keys = wire.keys_of(records)
    order = np.argsort(keys)
    records, keys = records[order], keys[order]
    is_tied = np.zeros(len(keys) + 1, dtype=np.bool_)
    is_tied[1:-1] = keys[1:] == keys[:-1]
    if not is_tied.any():
        return records
    # Records whose ids have the same first bits, or are equal: few, and next to each other.
    alike = np.flatnonzero(is_tied[1:] | is_tied[:-1])
    tied = records[alike]
    fields = (tied["offset"], tied["pack"], *(tied["id"][:, word] for word in (3, 2, 1, 0)))
    records[alike] = tied[np.lexsort(fields)]
    is_again = np.zeros(len(records), dtype=np.bool_)
    is_again[1:] = is_tied[1:-1] & (records[1:] == records[:-1])
    return records[~is_again]
