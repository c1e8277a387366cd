"""How much the backups hold and take."""

from datetime import UTC, datetime

import pytest
import yaml
from msgspec.structs import replace

from fakes.stored_backup import DATA_BYTES, DATE, MIB, StoredBackup
from virtbackup_async.catalog import definition_file
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.inventory.stats import StatsRequest, run_stats
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.events import (
    BackupStats,
    DayStats,
    DomainStats,
    GroupStats,
    RepositoryStats,
    TargetUnreadable,
    UnclaimedBackups,
)
from virtbackup_async.model.backup import Packager

DAY_S = 86_400


@pytest.fixture
def target(tmp_path):
    return tmp_path / "target"


@pytest.fixture
def make(tmp_path, target):
    async def make(packager, domain="web", date=DATE, image="image"):
        backup = StoredBackup(target, Packager(packager), domain, date)
        return await backup.make(tmp_path / image)

    return make


async def said(tmp_path, events=None, *, each_backup=False, **groups):
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump({"groups": groups}))
    events = [] if events is None else events
    await run_stats(Runtime(load_config(path), events.append), StatsRequest(groups, each_backup))
    return events


def of(events, kind):
    return [event for event in events if isinstance(event, kind)]


def day(date):
    return f"{datetime.fromtimestamp(date, UTC).astimezone():%Y-%m-%d}"


async def test_domains_groups_and_days_are_summed_up(tmp_path, target, make):
    for number in range(2):
        await make("directory", date=DATE + number * DAY_S)
    await make("directory", "db")
    await make("directory", "other")
    main = {"target": str(target), "hosts": ["web", "db"]}
    events = await said(tmp_path, main=main)
    one = {"size_bytes": MIB + DATA_BYTES, "data_bytes": DATA_BYTES, "stored_bytes": DATA_BYTES}
    two, three = ({key: times * value for key, value in one.items()} for times in (2, 3))
    assert events == [
        DomainStats("main", "db", 1, **one, guest="db"),
        DomainStats("main", "web", 2, **two, guest="web"),
        GroupStats("main", 2, 3, **three),
        DayStats("main", day(DATE), 2, **two),
        DayStats("main", day(DATE + DAY_S), 1, **one),
        UnclaimedBackups(str(target), ("other",), 1),
    ]


async def test_of_a_repository_equal_and_compressed_are_told_apart(tmp_path, target, make):
    for number, image in enumerate(["image", "image", "zeros"]):
        (tmp_path / "zeros").write_bytes(b"\1" * DATA_BYTES)
        await make("repository", date=DATE + number, image=image)
    await make("directory", "db")
    group = {"target": str(target), "hosts": ["r:."]}
    (store,) = of(await said(tmp_path, main=group, same_target=group), RepositoryStats)
    assert (store.target, store.backups) == (str(target), 3)
    assert store.data_bytes == 3 * DATA_BYTES
    assert store.size_bytes == 2 * MIB + 3 * DATA_BYTES
    assert store.mapped_bytes == 3 * DATA_BYTES
    assert store.chunk_bytes == 2 * DATA_BYTES, "two of the three chunks are equal"
    assert DATA_BYTES < store.chunk_stored_bytes < DATA_BYTES + 1024, "one of them compresses"
    assert store.chunk_stored_bytes < store.stored_bytes < store.chunk_stored_bytes + 1024


async def test_of_each_backup_it_is_told_what_would_be_free_without_it(tmp_path, target, make):
    for number, image in enumerate(["image", "image", "other"]):
        await make("repository", date=DATE + number, image=image)
    single = await make("zstd", "db")
    unknown = await make("directory", "app")
    strange = replace(unknown.definition, packager=Packager("strange"))
    unknown.path.write_bytes(definition_file.dumps(strange))
    group = {"target": str(target), "hosts": ["r:."]}
    told = of(await said(tmp_path, each_backup=True, main=group), BackupStats)
    freed = {one.backup: one.freed_bytes for one in told}
    assert len(freed) == 5
    files = [single.package, single.path]
    assert freed[single.name] == sum(path.stat().st_blocks * 512 for path in files)
    first, second, third = (one for one in told if one.domain == "web")
    assert first.freed_bytes == second.freed_bytes < 16384, "the map and the definition"
    assert DATA_BYTES < third.freed_bytes < DATA_BYTES + 16384
    assert third.data_bytes == DATA_BYTES
    assert third.date == datetime.fromtimestamp(DATE + 2, UTC).astimezone().isoformat()


async def test_a_target_that_cannot_be_read_does_not_hide_the_others(tmp_path, target, make):
    await make("directory")
    gone = {"target": str(tmp_path / "gone"), "hosts": ["web"]}
    events = []
    with pytest.raises(StorageError, match="gone"):
        await said(tmp_path, events, a=gone, b={"target": str(target), "hosts": ["web"]})
    assert isinstance(events[0], TargetUnreadable)
    assert (events[0].group, events[0].target) == ("a", str(tmp_path / "gone"))
    assert [event.group for event in of(events, GroupStats)] == ["b"]


async def test_a_map_that_is_cut_off_is_an_error(tmp_path, target, make):
    backup = await make("repository")
    backup.cut()
    with pytest.raises(CorruptError, match=r"_vda\.raw\.map: it is cut off"):
        await said(tmp_path, main={"target": str(target), "hosts": ["web"]})


async def test_backups_of_virt_backup_carry_no_lengths(tmp_path, target, make):
    backup = await make("directory")
    backup.path.write_bytes(definition_file.dumps(replace(backup.definition, records={})))
    domain, warned, *_ = await said(tmp_path, main={"target": str(target), "hosts": ["web"]})
    assert (domain.backups, domain.stored_bytes) == (1, 0)
    assert "1 backups of virt-backup do not say" in warned.message
