"""Listing: what a group shows."""

from datetime import UTC, datetime

import pytest

from fakes.hypervisor import FakeHypervisor
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.inventory.chosen_backup import find_backup
from virtbackup_async.engine.inventory.listing import ListRequest, list_backups, run_list
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import (
    ConfigError,
    CorruptError,
    NotFoundError,
    StorageError,
    VirtBackupError,
)
from virtbackup_async.events import (
    BrokenBackup,
    ListedBackup,
    ListedDomain,
    TargetSpace,
    UnclaimedBackups,
)

DATE = 1772331300  # 2026-03-01T02:15:00Z
DAY = 86_400


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


class Known(FakeHypervisor):
    """A libvirt of which only the names of domains are asked."""

    def __init__(self, names):
        super().__init__()
        self.names = tuple(names)

    async def domain_names(self):
        return self.names


async def shown(config, *domains, groups=(), known=None):
    """What `list` says of backups; the last is the error that it ends with, None if well."""
    events = []
    try:
        runtime = Runtime(config, events.append, known and Known(known))
        await run_list(runtime, ListRequest(groups, domains, with_known=known is not None))
        end = None
    except VirtBackupError as error:
        end = type(error)
    return [*(event for event in events if not isinstance(event, TargetSpace)), end]


async def test_broken_backup_is_told_by_the_group_of_its_domain(configure, put, tmp_path):
    put("web")
    broken = put("web", DATE + 60)
    path = tmp_path / "t" / "web" / f"{broken}.json"
    path.write_text("{")
    (tmp_path / "t" / "web" / "x.json.pending").write_text("{")
    config = configure(a={"hosts": ["web"]}, b={"hosts": ["db"]})
    first, second = await list_backups(config, (), (), known_domains=None)
    (event,) = first.broken
    assert (event.group, event.domain, event.backup) == ("a", "web", broken)
    assert (event.definition, event.error) == (
        str(path),
        "is not readable JSON: input data was truncated",
    )
    assert "x.json.pending" in first.problems[0]
    assert (second.broken, second.problems) == ((), ())
    assert len(first.backups_by_domain["web"]) == 1


async def test_missing_target_says_nothing_of_domains_and_hides_no_other(configure, put, tmp_path):
    put("web")
    gone = str(tmp_path / "gone")
    config = configure(a={"target": gone, "hosts": ["web"]}, b={"hosts": ["web"]})
    unreadable, listed_backup, error = await shown(config, known=["web"])
    assert (listed_backup.domain, listed_backup.group, error) == ("web", "b", StorageError)
    assert (unreadable.group, unreadable.target) == ("a", gone)
    assert not [event for event in await shown(config) if isinstance(event, ListedDomain)]


async def test_directory_that_was_not_read_is_not_no_backups(configure, put, tmp_path):
    put("web")
    (tmp_path / "t" / "web").rename(tmp_path / "elsewhere")
    (tmp_path / "t" / "web").symlink_to(tmp_path / "elsewhere")
    broken, error = await shown(configure(a={"hosts": ["web"]}), known=["web"])
    assert (broken.domain, error) == ("web", CorruptError)
    assert "symlink" in broken.error


async def test_broken_backups_alone_are_not_no_backups(configure, put, tmp_path):
    for seconds in range(50):
        name = put("web", DATE + seconds)
        (tmp_path / "t" / "web" / f"{name}.json").write_text("{")
    put("db")
    config = configure(a={"hosts": ["web", "db"]})
    *events, error = await shown(config, known=["web", "db"])
    assert error is CorruptError
    assert sum(isinstance(event, BrokenBackup) for event in events) == 50
    assert not [event for event in events if isinstance(event, ListedDomain)]
    put("web", DATE + 100)
    assert (await shown(config))[-1] is None, "one of its backups can be read"


@pytest.mark.parametrize("domain_id", ["7", "", None, 7.5, True, "9" * 30])
async def test_domain_id_that_is_no_number_hides_no_backup(configure, put, domain_id):
    name = put("web", domain_id=3)
    put_again = {"name": name, "disks": {"vda": f"{name}_vda.qcow2"}}
    put("web", domain_id=domain_id, **put_again)
    assert (await listed(configure(a={"hosts": ["web"]})))["a"]["web"] >= 1


async def test_domain_that_nobody_knows_is_not_found(configure, put, tmp_path):
    put("web")
    put("retired")
    config = configure(a={"hosts": ["web", "new"]}, b={"hosts": ["r:.*"]})
    for name in ("wbe", "r:^x", "nobody"):
        with pytest.raises(NotFoundError, match="no group names it"):
            await listed(config, domains=["web", name])
    with pytest.raises(NotFoundError, match="did you mean 'web'"):
        await listed(config, domains=["weeb"])
    assert await listed(config, domains=["retired"]) == {"a": {}, "b": {"retired": 1}}
    assert await listed(config, domains=["new"]) == {"a": {"new": 0}, "b": {"new": 0}}
    assert (await listed(config, domains=["libvirt"], known=["libvirt"]))["b"] == {"libvirt": 0}
    gone = {"target": str(tmp_path / "gone"), "hosts": ["x"]}
    *events, error = await shown(configure(a={"hosts": ["web"]}, c=gone), "nobody")
    assert error is StorageError, "what is there is not known"
    assert not [event for event in events if isinstance(event, ListedDomain)]


async def test_backups_that_no_group_means_are_told(configure, put, tmp_path):
    put("web")
    for domain in ("gone", "gone2", "other"):
        put(domain)
    put("gone", DATE + 60)
    config = configure(a={"hosts": ["web"]}, b={"hosts": ["other"]})
    told = UnclaimedBackups(str(tmp_path / "t"), ("gone", "gone2"), 3)
    for groups in ((), ("a",)):
        assert (await shown(config, groups=groups))[-2:] == [told, None]
    assert told not in await shown(config, "web")


async def test_group_without_a_target_is_passed_over_unless_named(configure, put, tmp_path):
    put("web")
    (tmp_path / "config.yml").write_text(
        f"groups: {{a: {{hosts: [web]}}, b: {{hosts: [web], target: {tmp_path}/t}}}}"
    )
    config = load_config(tmp_path / "config.yml")
    assert await listed(config) == {"b": {"web": 1}}
    with pytest.raises(ConfigError, match="no target"):
        await listed(config, ["a"])


@pytest.mark.parametrize("text", ["groups: {a: {hosts: [web]}}", "groups: {}"])
async def test_where_there_is_nothing_to_look_at_no_backups_are_not_the_answer(tmp_path, text):
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(ConfigError, match="no group"):
        await listed(load_config(tmp_path / "config.yml"))


async def test_unknown_group_is_not_found(configure):
    config = configure(alpha={})
    with pytest.raises(NotFoundError, match="did you mean 'alpha'"):
        await listed(config, ["alfa"])
    with pytest.raises(NotFoundError, match="did you mean 'alpha'"):
        await find_backup(config, "alfa", "web", None)


async def test_a_domain_may_stand_where_a_group_stands(configure, put):
    put("web")
    put("r:x")
    put("db")
    config = configure(a={"hosts": ["web", "r:r:x", "new"]}, b={"hosts": ["db"]})
    for words, domains in (
        (("web",), ["web"]),
        (("a", "web"), ["web"]),
        (("r:x",), ["r:x"]),
        (("web", "db"), ["web", "db"]),
        (("b",), ["db"]),
    ):
        events = await shown(config, groups=words)
        assert [event.domain for event in events[:-1]] == domains, words
    (new, error) = await shown(config, groups=("new",))
    assert (new.domain, error) == ("new", None)
    with pytest.raises(NotFoundError, match="did you mean 'web'"):
        await run_list(Runtime(config, print), ListRequest(("wep",)))


async def listed_by(config, **request):
    told = []
    runtime = Runtime(config, told.append, now=lambda: datetime.fromtimestamp(DATE + 10 * DAY, UTC))
    await run_list(runtime, ListRequest(**request))
    return told, [e.date_unix for e in told if isinstance(e, ListedBackup)]


async def test_state_and_age_are_said(configure, put):
    put("web", DATE)
    put("web", DATE + DAY, verified={"date": DATE, "ok": True, "digests": True})
    put("web", DATE + 2 * DAY, verified={"date": DATE, "ok": False, "digests": True, "error": "x"})
    told, dates = await listed_by(configure(a={"hosts": ["web"]}))
    backups = [event for event in told if isinstance(event, ListedBackup)]
    assert [backup.state for backup in backups] == ["unverified", "good", "damaged"]
    assert dates == [DATE, DATE + DAY, DATE + 2 * DAY]
    assert [backup.age_s for backup in backups] == [10 * DAY, 9 * DAY, 8 * DAY]
    (space,) = [event for event in told if isinstance(event, TargetSpace)]
    assert space.groups == ("a",)
    assert space.free_bytes > 0


async def test_a_broken_backup_has_a_state_and_the_date_of_its_name(configure, put, tmp_path):
    name = put("web", DATE)
    put("web", DATE + DAY)
    (tmp_path / "t" / "web" / f"{name}.json").write_text("{")
    told, _ = await listed_by(configure(a={"hosts": ["web"]}))
    (broken,) = [event for event in told if isinstance(event, BrokenBackup)]
    assert (broken.state, broken.date_unix, broken.age_s) == ("broken", DATE, 10 * DAY)


async def test_latest_is_the_newest_good_backup(configure, put):
    bad = {"date": DATE, "ok": False, "digests": True, "error": "x"}
    put("web", DATE)
    put("web", DATE + DAY)
    put("web", DATE + 2 * DAY, verified=bad)
    put("db", DATE + 3 * DAY, verified=bad)
    _, dates = await listed_by(configure(a={"hosts": ["r:.*"]}), latest=True)
    assert sorted(dates) == [DATE + DAY, DATE + 3 * DAY]


@pytest.mark.parametrize("since", ["9d", "2026-03-02"])
async def test_since_takes_an_age_or_a_date(configure, put, since, berlin):
    for day in range(3):
        put("web", DATE + day * DAY)
    _, dates = await listed_by(configure(a={"hosts": ["web"]}), since=since)
    assert dates == [DATE + DAY, DATE + 2 * DAY]


async def test_a_backup_in_the_place_of_a_domain_teaches_the_right_command(configure, put):
    put("web")
    config = configure(main={"hosts": ["web"]})
    with pytest.raises(NotFoundError) as caught:
        await listed(config, domains=["web@yesterday"])
    assert str(caught.value) == (
        "web@yesterday names a backup, not a domain. `virtbackup show web@yesterday` shows it, "
        "`virtbackup list web` all backups of the domain."
    )
