"""Listing: what a group shows."""

import pytest

from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.chosen_backup import find_backup
from virtbackup_async.engine.listing import list_backups
from virtbackup_async.errors import ConfigError, NotFoundError

DATE = 1772331300  # 2026-03-01T02:15:00Z


async def listed(config, groups=(), domains=(), known=None):
    listings = await list_backups(config, groups, domains, known_domains=known)
    return {
        listing.group: {name: len(found) for name, found in listing.backups_by_domain.items()}
        for listing in listings
    }


async def test_group_shows_the_domains_that_its_hosts_mean(configure, put):
    for domain in ("web", "db", "other"):
        put(domain)
    put("web", DATE + 1)
    config = configure(a={"hosts": ["r:^w", "gone"]}, b={"hosts": ["db", "web", "!web"]})
    assert await listed(config) == {"a": {"web": 2}, "b": {"db": 1}}
    assert await listed(config, ["b"]) == {"b": {"db": 1}}


async def test_known_domains_are_shown_without_backups(configure, put):
    put("web")
    config = configure(a={"hosts": ["r:^w"]})
    known = ("www", "web", "db")
    assert await listed(config, known=known) == {"a": {"web": 1, "www": 0}}
    assert await listed(config, domains=["www"], known=known) == {"a": {"www": 0}}


async def test_named_domains_are_shown_alone(configure, put):
    for domain in ("web", "db", "retired"):
        put(domain)
    config = configure(a={"hosts": ["web"]}, b={"hosts": ["db"]})
    assert await listed(config, domains=["web"]) == {"a": {"web": 1}, "b": {}}
    assert await listed(config, domains=["r:.*b"]) == {"a": {"web": 1}, "b": {"db": 1}}


async def test_domain_that_no_group_means_any_more_can_be_named(configure, put):
    put("retired")
    config = configure(a={"hosts": ["web"]})
    assert await listed(config) == {"a": {}}
    assert await listed(config, domains=["retired"]) == {"a": {"retired": 1}}


async def test_domain_pattern_that_is_wrong_is_refused(configure):
    with pytest.raises(ConfigError, match="invalid"):
        await listed(configure(a={}), domains=["r:("])


async def test_listed_backup_says_what_is_known(configure, put, berlin, tmp_path):
    name = put("web")
    (listing,) = await list_backups(configure(a={"hosts": ["web"]}), (), (), known_domains=None)
    (backup,) = listing.backups_by_domain["web"]
    assert backup.group == "a"
    assert backup.date == "2026-03-01T03:15:00+01:00"
    assert backup.backup == name == "20260301-031500_3_web"
    assert backup.definition == str(tmp_path / "t" / "web" / f"{name}.json")
    assert backup.disks == ("vda",)
    assert backup.size_bytes is backup.stored_bytes is backup.quiesced is None


async def test_sizes_count_backing_images(configure, put):
    image = {
        "source": "/i",
        "format": "qcow2",
        "size_bytes": 10,
        "data_bytes": 5,
        "stored_bytes": 3,
        "digest": "",
    }
    name = put("web")
    file = f"{name}_vda.qcow2"
    images = {"vda": image | {"file": file, "backing": [image | {"file": file}]}}
    put("web", version="1.0.0", images=images)
    (listing,) = await list_backups(configure(a={"hosts": ["web"]}), (), (), known_domains=None)
    (backup,) = listing.backups_by_domain["web"]
    assert (backup.size_bytes, backup.stored_bytes) == (20, 6)


async def test_problem_is_told_by_the_group_of_its_domain(configure, put, tmp_path):
    put("web")
    bad = tmp_path / "t" / "web" / "bad.json"
    bad.write_text("{")
    config = configure(a={"hosts": ["web"]}, b={"hosts": ["db"]})
    first, second = await list_backups(config, (), (), known_domains=None)
    assert len(first.problems) == 1
    assert str(bad) in first.problems[0]
    assert second.problems == ()
    assert len(first.backups_by_domain["web"]) == 1


async def test_target_that_is_missing_hides_no_other(configure, put, tmp_path):
    put("web")
    hosts = ["web"]
    config = configure(a={"target": str(tmp_path / "gone"), "hosts": hosts}, b={"hosts": hosts})
    first, second = await list_backups(config, (), (), known_domains=["web"])
    assert first.backups_by_domain == {"web": ()}
    assert "gone" in first.problems[0]
    assert len(second.backups_by_domain["web"]) == 1


async def test_group_without_a_target_is_passed_over_unless_named(configure, tmp_path):
    config = configure(a={"hosts": ["web"]})
    (tmp_path / "config.yml").write_text("groups: {a: {hosts: [web]}}")
    config = load_config(tmp_path / "config.yml")
    assert await listed(config) == {}
    with pytest.raises(ConfigError, match="no target"):
        await listed(config, ["a"])


async def test_unknown_group_is_not_found(configure):
    config = configure(alpha={})
    with pytest.raises(NotFoundError, match="did you mean 'alpha'"):
        await listed(config, ["alfa"])
    with pytest.raises(NotFoundError, match="did you mean 'alpha'"):
        await find_backup(config, "alfa", "web", None)
