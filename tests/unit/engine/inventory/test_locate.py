"""Which backup a name means among the targets of a configuration, readable or not."""

from datetime import UTC, datetime, timedelta

import pytest

from virtbackup_async.engine.inventory.chosen_backup import (
    FindRequest,
    PinRequest,
    find_backup,
    find_backup_to_read,
    set_pinned,
)
from virtbackup_async.engine.inventory.locate import locate
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import ConfigError, DefinitionError, NotFoundError, StorageError
from virtbackup_async.events import Warned

DATE = 1772331300  # 2026-03-01T02:15:00Z
NOW = datetime.fromtimestamp(DATE, UTC) + timedelta(days=3, hours=5)


@pytest.fixture
def two(configure, put, tmp_path):
    """Two targets: web is in both, mail and db in one each."""
    (tmp_path / "u").mkdir()
    for domain, target in (("web", "t"), ("web", "u"), ("mail", "t"), ("db", "u")):
        put(domain, target=target)
    return configure(
        nightly={"hosts": ["web", "mail"]},
        weekly={"target": str(tmp_path / "u"), "hosts": ["web", "db"]},
    )


async def where(config, name, **options):
    found = await locate(config, options.pop("group", None), name, now=NOW, **options)
    return found.group, found.domain, found.date


async def test_a_name_is_looked_for_in_all_targets(two):
    assert await where(two, "mail") == ("nightly", "mail", None)
    assert await where(two, "db@yesterday") == ("weekly", "db", "yesterday")
    assert await where(two, "db", date="latest") == ("weekly", "db", None)
    assert await where(two, "weekly/web") == ("weekly", "web", None)
    with pytest.raises(ConfigError, match="can mean 2 backups") as caught:
        await where(two, "web")
    assert "'nightly/web@latest', 'weekly/web@latest'" in caught.value.hint


async def test_a_group_apart_takes_a_name_with_a_date_too(two):
    assert await where(two, "web@3d", group="weekly") == ("weekly", "web", "3d")
    with pytest.raises(NotFoundError, match="no backup of db"):
        await where(two, "db@3d", group="nightly")


async def test_an_exact_name_beside_a_group_is_the_domain_as_ever(configure, put):
    put("web")
    put("web@today")
    config = configure(a={})
    assert await where(config, "web@today", group="a") == ("a", "web@today", None)
    assert await where(config, "web", group="a", date="today") == ("a", "web", "today")
    with pytest.raises(ConfigError, match="can mean 2 backups"):
        await where(config, "web@today")
    assert await where(config, "web@today", date="3d") == ("a", "web@today", "3d")


async def test_a_date_is_given_once(two):
    for group in (None, "nightly"):
        with pytest.raises(ConfigError, match="'mail@3d' names a date already"):
            await where(two, "mail@3d", group=group, date="2026-03-01")


async def test_a_target_that_may_have_a_newer_backup_is_not_passed_over(two, tmp_path):
    (tmp_path / "t").rename(tmp_path / "away")
    with pytest.raises(StorageError) as caught:
        await where(two, "web")
    assert caught.value.hint == "Name the group to look elsewhere: weekly/web@latest."
    assert await where(two, "weekly/web") == ("weekly", "web", None)
    assert await where(two, "db") == ("weekly", "db", None)
    of_its_own_name = await find_backup(
        two, None, (await find_backup(two, None, "db", None)).definition.name, None
    )
    assert of_its_own_name.definition.domain_name == "db"
    for name in ("mail", "nope", "nightly/web", "nightly/db"):
        with pytest.raises(StorageError):
            await where(two, name)


async def test_without_a_target_there_is_nothing_to_look_into(tmp_path, configure):
    with pytest.raises(ConfigError, match="target"):
        await where(configure(), "web")


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("web", 2),
        ("web@latest", 2),
        ("web@2d", 1),
        ("web@3d", 0),
        ("web@2026-03-01", 0),
        ("web@yesterday", 2),
        ("web@today", 2),  # there is none of today: the last one before it
    ],
)
async def test_the_backup_of_a_name_is_found(configure, put, berlin, name, day):
    for days in range(3):
        put("web", DATE + 86400 * days)
    events = []
    runtime = Runtime(configure(a={}), events.append, now=lambda: NOW)
    found = await find_backup_to_read(runtime, FindRequest(None, name))
    assert found.definition.date == DATE + 86400 * day
    if name == "web@today":
        message = "no backup at today: taking the last one before it, of 2026-03-03 03:15:00"
        assert events == [Warned(message, "web")]
    else:
        assert events == []


async def test_a_pin_takes_no_backup_before_the_date(configure, put, berlin):
    put("web", DATE)
    newest = put("web", DATE + 86400)
    runtime = Runtime(configure(a={}), print, now=lambda: NOW)
    pinned = await set_pinned(runtime, PinRequest(None, "web@2d"))
    assert (pinned.group, pinned.domain, pinned.backup) == ("a", "web", newest)
    with pytest.raises(NotFoundError, match="no backup of web at today") as caught:
        await set_pinned(runtime, PinRequest(None, "web@today"))
    assert caught.value.hint.startswith("The nearest are of 2026-03-02 03:15:00, 2026-03-01")


async def test_the_name_of_a_damaged_backup_means_that_one(configure, put, tmp_path):
    put("web")
    newest = put("web", DATE + 60)
    (tmp_path / "t" / "web" / f"{newest}.json").write_text("{")
    config = configure(a={})
    for name in (newest, f"web@{newest}", "web"):
        with pytest.raises(DefinitionError, match=newest):
            await find_backup(config, None, name, None)


async def test_a_domain_of_which_all_is_damaged_is_still_known(configure, put, tmp_path):
    name = put("web")
    (tmp_path / "t" / "web" / f"{name}.json").write_text("{")
    with pytest.raises(DefinitionError, match=name):
        await find_backup(configure(a={}), None, "web", None)
