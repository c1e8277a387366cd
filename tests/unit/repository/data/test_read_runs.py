"""repository/data/read_runs.py: what is read at once, and in which order."""

import numpy as np
import pytest

from virtbackup_async.repository.data.read_runs import GAP_BYTES, PLACE, RUN_BYTES, runs_of


def runs(*places):
    """Where the runs of some places (pack, offset, length) start and end."""
    array = np.zeros(len(places), dtype=PLACE)
    for row, (pack, offset, length) in zip(array, places, strict=True):
        row["pack"], row["offset"], row["length"] = pack, offset, length
    return [(run.pack, run.start, run.end, len(run.places)) for run in runs_of(array)]


def test_places_come_by_pack_and_offset():
    assert runs((1, 64, 10), (0, 500, 10), (1, 0, 64), (0, 0, 500)) == [
        (0, 0, 510, 2),
        (1, 0, 74, 2),
    ]
    assert runs((7, 64, 10)) == [(7, 64, 74, 1)]
    assert runs() == []


def test_a_gap_is_read_along_up_to_its_length():
    near = 100 + GAP_BYTES
    assert runs((0, 0, 100), (0, near, 5)) == [(0, 0, near + 5, 2)]
    assert runs((0, 0, 100), (0, near + 1, 5)) == [(0, 0, 100, 1), (0, near + 1, near + 6, 1)]


@pytest.mark.parametrize("pack_bytes", [RUN_BYTES, 3 * RUN_BYTES])
def test_no_run_is_much_longer_than_the_longest(pack_bytes):
    length = 1 << 18
    found = runs(*((0, at, length) for at in range(0, pack_bytes, length)))
    assert [(start, end) for _, start, end, _ in found] == [
        (at, at + RUN_BYTES) for at in range(0, pack_bytes, RUN_BYTES)
    ]


def test_offsets_up_to_the_last_one_that_an_index_can_name():
    last = (1 << 32) - 1
    assert runs((0, last, 10), (0, last - 20, 10)) == [(0, last - 20, last + 10, 2)]


def test_copies_at_one_place_are_read_at_once():
    assert runs((0, 64, 10), (0, 64, 10), (0, 74, 1)) == [(0, 64, 75, 3)]
