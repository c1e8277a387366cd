"""A small simulation of many hosts: everything that is listed is what the disks held."""

import pytest
from benchmarks.scale import Place, Size, simulate


@pytest.mark.timeout(300)
def test_what_a_few_hosts_stored_is_there_although_one_was_killed(
    object_server, tmp_path, monkeypatch
):
    monkeypatch.setenv("VIRTBACKUP_CACHE_DIRECTORY", str(tmp_path / "cache"))
    size = Size(hosts=3, guests=1, nights=2, processes=1, clean_every=2)
    simulated = simulate(size, Place(object_server.endpoint, tmp_path), restored=2)
    assert [night.killed for night in simulated.nights] == [0, 1]
    assert simulated.nights[0].done == size.hosts
    assert sum(night.done for night in simulated.nights) <= simulated.checked.listed
    assert simulated.checked.restored == 2
    # Whoever was not killed has a backup of the last night.
    newest = list(simulated.checked.newest.values())
    assert newest.count(size.nights - 1) >= size.hosts - 1
    assert len(newest) == size.hosts
    assert simulated.nights[-1].clean.requests
