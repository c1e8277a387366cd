"""A small simulation of many hosts: everything that is listed is what the disks held."""

from benchmarks.scale import Place, Size, simulate


def test_what_a_few_hosts_stored_is_there_although_some_were_killed(
    object_server, tmp_path, monkeypatch
):
    monkeypatch.setenv("VIRTBACKUP_CACHE_DIRECTORY", str(tmp_path / "cache"))
    size = Size(hosts=3, guests=2, nights=3, processes=1, clean_every=2)
    simulated = simulate(size, Place(object_server.endpoint, tmp_path))
    assert [night.killed for night in simulated.nights] == [0, 1, 1]
    assert simulated.nights[0].done == size.hosts * size.guests
    assert sum(night.done for night in simulated.nights) <= simulated.checked.listed
    assert simulated.checked.restored == simulated.checked.listed
    # Whoever was not killed in the last night has a backup of it.
    newest = list(simulated.checked.newest.values())
    assert newest.count(size.nights - 1) >= (size.hosts - 1) * size.guests
    assert len(newest) == size.hosts * size.guests
    assert simulated.nights[-1].clean.requests
