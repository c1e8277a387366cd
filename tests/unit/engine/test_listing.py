"""Listing and finding: what a group shows, and which backup a date means."""

import json
import time
from datetime import UTC, datetime

import pytest
import yaml

from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.listing import find_backup, find_backup_or_before, list_backups
from virtbackup_async.errors import ConfigError, DefinitionError, NotFoundError, StorageError
from virtbackup_async.events import Warned

DATE = 1772331300  # 2026-03-01T02:15:00Z


@pytest.fixture
def berlin(monkeypatch):
    """Local time is an hour ahead of UTC in winter, two in summer."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def configure(tmp_path):
    def configure(**groups):
        (tmp_path / "t").mkdir(exist_ok=True)
        path = tmp_path / "config.yml"
        default = {"target": str(tmp_path / "t")}
        path.write_text(yaml.safe_dump({"default": default, "groups": groups}))
        return load_config(path)

    return configure


@pytest.fixture
def put(tmp_path):
    def put(domain, date=DATE, *, target="t", domain_id=3, **changed):
        stamp = datetime.fromtimestamp(date, UTC).astimezone().strftime("%Y%m%d-%H%M%S")
        name = f"{stamp}_{domain_id}_{domain}"
        directory = tmp_path / target / domain
        directory.mkdir(parents=True, exist_ok=True)
        file = f"{name}_vda.qcow2"
        (directory / file).touch()
        raw = {
            "name": name,
            "domain_id": domain_id,
            "domain_name": domain,
            "domain_xml": "<domain/>",
            "disks": {"vda": file},
            "version": "0.5.6",
            "date": date,
            "packager": {"type": "directory", "opts": {}},
        }
        (directory / f"{name}.json").write_text(json.dumps(raw | changed))
        return name

    return put


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


async def test_newest_backup_is_found_without_a_date(configure, put):
    put("web", DATE + 60)
    put("web", DATE)
    put("db", DATE + 120)
    found = await find_backup(configure(a={"hosts": ["web"]}), "a", "web", None)
    assert found.definition.date == DATE + 60
    assert found.path.exists()


@pytest.mark.parametrize(
    "date",
    [
        "2026-03-01T02:15:00Z",
        "2026-03-01T02:15:00+00:00",
        "2026-03-01T03:15:00+01:00",
        "2026-03-01 03:15:00",
        "2026-03-01T02:15:00",
        "2026-03-01T03:15",
        "20260301-031500",
        "20260301T031500",
        "20260301-031500_3_web",
    ],
)
async def test_date_is_taken_in_many_ways(configure, put, berlin, date):
    put("web", DATE - 86400)
    put("web")
    put("web", DATE + 86400)
    found = await find_backup(configure(a={}), "a", "web", date)
    assert found.definition.date == DATE


async def test_local_reading_of_a_date_wins_over_utc(configure, put, berlin):
    put("web", DATE)
    put("web", DATE - 3600)
    found = await find_backup(configure(a={}), "a", "web", "2026-03-01T02:15:00")
    assert found.definition.date == DATE - 3600


@pytest.mark.parametrize("hour", [0, 1])
async def test_both_hours_at_the_end_of_summer_are_found(configure, put, berlin, hour):
    twice = 1792888200 + hour * 3600  # 2026-10-25T02:30 local, first and second time
    put("web", twice)
    found = await find_backup(configure(a={}), "a", "web", "2026-10-25T02:30:00")
    assert found.definition.date == twice


async def test_dates_as_listed_find_their_backup(configure, put, berlin):
    config = configure(a={"hosts": ["web"]})
    for seconds in range(0, 86400 * 400, 86400 * 40):
        put("web", DATE + seconds)
    (listing,) = await list_backups(config, (), (), known_domains=None)
    for backup in listing.backups_by_domain["web"]:
        found = await find_backup(config, "a", "web", backup.date)
        assert str(found.path) == backup.definition


async def test_date_without_a_backup_names_the_nearest(configure, put, berlin):
    for day in range(-3, 4):
        put("web", DATE + 86400 * day)
    with pytest.raises(NotFoundError) as caught:
        await find_backup(configure(a={}), "a", "web", "2026-03-01T03:16:00")
    assert caught.value.message == "no backup of web at 2026-03-01T03:16:00"
    assert caught.value.hint == (
        "The nearest are of 2026-03-01T03:15:00+01:00, 2026-03-02T03:15:00+01:00, "
        "2026-02-28T03:15:00+01:00."
    )


@pytest.mark.parametrize("date", ["yesterday", "", "2026-13-01", "0001-01-01T00:00:00"])
async def test_date_that_is_none_is_refused(configure, put, berlin, date):
    put("web")
    with pytest.raises((ConfigError, NotFoundError)) as caught:
        await find_backup(configure(a={}), "a", "web", date)
    assert caught.value.exit_code in (2, 12)
    assert caught.value.hint


async def test_domain_without_backups_is_not_found(configure, put):
    put("web")
    with pytest.raises(NotFoundError, match=r"no backup of webb in .*did you mean 'web'"):
        await find_backup(configure(a={}), "a", "webb", None)


async def test_target_that_is_missing_is_told_when_restoring(configure, tmp_path):
    config = configure(a={"target": str(tmp_path / "gone")})
    with pytest.raises(StorageError):
        await find_backup(config, "a", "web", None)


async def test_damaged_newest_backup_is_not_passed_over_in_silence(configure, put, tmp_path):
    older = put("web", DATE)
    newest = put("web", DATE + 60)
    (tmp_path / "t" / "web" / f"{newest}.json").write_text("{")
    config = configure(a={})
    for date in (None, newest, newest[:15]):
        with pytest.raises(DefinitionError, match="Name the date of another backup") as caught:
            await find_backup(config, "a", "web", date)
        assert newest in str(caught.value)
    assert (await find_backup(config, "a", "web", older)).definition.date == DATE


async def test_damaged_older_backup_does_not_matter(configure, put, tmp_path):
    older = put("web", DATE)
    put("web", DATE + 60)
    (tmp_path / "t" / "web" / f"{older}.json").write_text("{")
    (tmp_path / "t" / "web" / "zzz.json").write_text("{")
    found = await find_backup(configure(a={}), "a", "web", None)
    assert found.definition.date == DATE + 60


async def test_only_backup_damaged_is_told(configure, put, tmp_path):
    name = put("web")
    (tmp_path / "t" / "web" / f"{name}_vda.qcow2").unlink()
    with pytest.raises(DefinitionError, match="data missing"):
        await find_backup(configure(a={}), "a", "web", None)


@pytest.mark.parametrize(
    ("date", "day", "said"),
    [
        ("2026-03-01T03:15:00", 0, False),
        ("20260301-031500_3_web", 0, False),
        ("2026-03-01T03:15:01", 0, True),
        ("2026-03-01T03:14:59", -1, True),
        ("2026-03-01", 0, True),
        ("20260228", -1, True),
        ("2026-02-27T12:00:00Z", -2, True),
        ("2030-01-01", 1, True),
    ],
)
async def test_last_backup_before_a_date_is_taken_and_said(configure, put, berlin, date, day, said):
    for days in (-2, -1, 0, 1):
        put("web", DATE + 86400 * days)
    events = []
    found = await find_backup_or_before(configure(a={}), "a", "web", date, events.append)
    assert found.definition.date == DATE + 86400 * day
    moment = datetime.fromtimestamp(found.definition.date).astimezone().isoformat()
    message = f"no backup at {date}: taking the last one before it, of {moment}"
    assert events == ([Warned(message, "web")] if said else [])


async def test_no_backup_before_a_date_names_the_nearest(configure, put, berlin):
    put("web")
    with pytest.raises(NotFoundError, match="no backup of web at 2026-02-28") as caught:
        await find_backup_or_before(configure(a={}), "a", "web", "2026-02-28", [].append)
    assert "2026-03-01T03:15:00+01:00" in str(caught.value)


async def test_damaged_last_backup_before_a_date_is_not_passed_over(
    configure, put, berlin, tmp_path
):
    put("web", DATE)
    damaged = put("web", DATE + 60)
    put("web", DATE + 120)
    (tmp_path / "t" / "web" / f"{damaged}.json").write_text("{")
    config = configure(a={})
    with pytest.raises(DefinitionError, match=damaged):
        await find_backup_or_before(config, "a", "web", "2026-03-01T03:16:30", [].append)
    for date, expected in (("2026-03-01T03:15:30", DATE), ("2026-03-01", DATE + 120)):
        found = await find_backup_or_before(config, "a", "web", date, [].append)
        assert found.definition.date == expected
