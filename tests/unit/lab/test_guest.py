"""The guest is built once, and what cannot be built is not tried again and again."""

import pytest

from lab import guest
from lab.process import LabError


def test_a_build_that_failed_is_not_tried_again(monkeypatch, tmp_path):
    tries = []

    def gather(workspace):
        tries.append(workspace)
        raise LabError("no kernel")

    monkeypatch.setattr(guest, "gather", gather)
    monkeypatch.setattr(guest, "_failures", [])
    monkeypatch.setenv("VIRTBACKUP_CACHE", str(tmp_path))
    for _ in range(3):
        with pytest.raises(LabError, match="no kernel"):
            guest.build()
    assert len(tries) == 1
