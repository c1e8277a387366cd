"""Which backup an admin means by a domain and a date, and what is said of it."""

import shutil
from datetime import UTC, datetime

import pytest

from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.inventory.chosen_backup import (
    FindRequest,
    find_backup,
    find_backup_to_read,
)
from virtbackup_async.engine.inventory.dates import pasteable
from virtbackup_async.engine.inventory.lacking import missing_since_last, up_to
from virtbackup_async.engine.inventory.listing import list_backups
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import ConfigError, DefinitionError, NotFoundError, StorageError
from virtbackup_async.events import Warned
from virtbackup_async.model import domain_xml
from virtbackup_async.model.domain import NOT_WANTED, NOTHING_TO_MISS
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.storage_location import StorageLocation

DATE = 1772331300  # 2026-03-01T02:15:00Z


async def read(config, emit, *asked, **options):
    return await find_backup_to_read(Runtime(config, emit), FindRequest(*asked, **options))


async def read_silently(config, group, domain, date):
    return await read(config, lambda _event: None, group, domain, date)


async def test_newest_backup_is_found_without_a_date(configure, put):
    put("web", DATE + 60)
    put("web", DATE)
    put("db", DATE + 120)
    found = await find_backup(configure(a={"hosts": ["web"]}), "a", "web", None)
    assert found.definition.date == DATE + 60
    assert found.path.local.exists()


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


@pytest.fixture
def unread(put, tmp_path):
    """The domain's directory, which cannot be read any more."""
    put("web", DATE)
    directory = tmp_path / "t" / "web"
    directory.rename(tmp_path / "away")
    directory.symlink_to(tmp_path / "away")
    return directory


@pytest.mark.parametrize("find", [find_backup, read_silently])
@pytest.mark.parametrize("date", [None, "2026-03-01T02:15:00Z", "2027-01-01"])
async def test_a_directory_that_cannot_be_read_is_no_lack_of_backups(configure, unread, find, date):
    with pytest.raises(StorageError, match=f"cannot read {unread}: a symlink, not followed"):
        await find(configure(a={}), "a", "web", date)


@pytest.mark.parametrize("find", [find_backup, read_silently])
async def test_no_older_backup_elsewhere_stands_in_for_a_directory_that_cannot_be_read(
    configure, put, tmp_path, unread, find
):
    older = put("web", DATE - 86400, target="elsewhere")
    shutil.move(tmp_path / "elsewhere" / "web", tmp_path / "t" / "moved")
    config = configure(a={})
    for date in (None, "2026-03-01T02:15:00Z"):
        with pytest.raises(StorageError, match=f"cannot read {unread}"):
            await find(config, "a", "web", date)
    # That one is meant, and can be read.
    assert (await find(config, "a", "web", older)).definition.name == older


async def test_date_without_a_backup_names_the_nearest(configure, put, berlin):
    for day in range(-3, 4):
        put("web", DATE + 86400 * day)
    with pytest.raises(NotFoundError) as caught:
        await find_backup(configure(a={}), "a", "web", "2026-03-01T03:16:00")
    assert caught.value.message == "no backup of web at 2026-03-01T03:16:00"
    assert caught.value.hint == (
        "The nearest are of 2026-03-01 03:15:00, 2026-03-02 03:15:00, 2026-02-28 03:15:00."
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
        with pytest.raises(DefinitionError, match="is not readable JSON") as caught:
            await find_backup(config, "a", "web", date)
        assert f" restore web@{older} DIRECTORY` to take" in caught.value.hint
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
        ("2026-03-01", 0, False),
        ("2026-03-01T03", 0, False),
        ("2026-03-01 03:15", 0, False),
        ("2026-03-01 0315", 0, False),
        ("2026-03-01T03:15:00.5", 0, False),
        ("2026-03", 1, False),
        ("2026-02", -1, False),
        ("20260228", -1, False),
        ("2026-02-27", -2, False),
        ("2026-W09-7", 0, False),
        ("2026-02-27T02Z", -2, False),
        ("2026-02-27T12:00:00Z", -2, True),
        ("2026-03-01T04", 0, True),
        ("2026-04", 1, True),
        ("2030-01-01", 1, True),
        ("20260301-040000_3_web", 0, True),
    ],
)
async def test_last_backup_before_a_date_is_taken_and_said(configure, put, berlin, date, day, said):
    for days in (-2, -1, 0, 1):
        put("web", DATE + 86400 * days)
    events = []
    found = await read(configure(a={}), events.append, "a", "web", date)
    assert found.definition.date == DATE + 86400 * day
    moment = pasteable(datetime.fromtimestamp(found.definition.date, UTC))
    message = f"no backup at {date}: taking the last one before it, of {moment}"
    assert events == ([Warned(message, "web")] if said else [])


async def test_no_backup_before_a_date_names_the_nearest(configure, put, berlin):
    put("web")
    with pytest.raises(NotFoundError, match="no backup of web at 2026-02-28") as caught:
        await read(configure(a={}), [].append, "a", "web", "2026-02-28")
    assert "2026-03-01 03:15:00" in str(caught.value)


async def test_damaged_last_backup_before_a_date_is_not_passed_over(
    configure, put, berlin, tmp_path
):
    put("web", DATE)
    damaged = put("web", DATE + 60)
    put("web", DATE + 120)
    (tmp_path / "t" / "web" / f"{damaged}.json").write_text("{")
    config = configure(a={})
    with pytest.raises(DefinitionError, match=damaged):
        await read(config, [].append, "a", "web", "2026-03-01T03:16:30")
    with pytest.raises(DefinitionError, match=damaged):
        await read(config, [].append, "a", "web", "2026-03-01T03:16")
    for date, expected in (("2026-03-01T03:15:30", DATE), ("2026-03-01", DATE + 120)):
        found = await read(config, [].append, "a", "web", date)
        assert found.definition.date == expected


async def test_a_date_means_the_last_backup_of_its_unit(configure, put, berlin):
    """Also where the date was copied from a list that leaves the seconds out."""
    for seconds in (0, 7, 45, 120, 3000, 50_000):
        put("web", DATE + seconds)
    config = configure(a={})
    for date, seconds in (
        ("2026-03-01 03:15", 45),
        ("2026-03-01 03:17", 120),
        ("2026-03-01T03", 120),
        ("2026-03-01T04", 3000),
        ("2026-03-01", 50_000),
        ("2026-03", 50_000),
        ("2026-03-01 03:15:07", 7),
    ):
        assert (await find_backup(config, "a", "web", date)).definition.date == DATE + seconds
        events = []
        found = await read(config, events.append, "a", "web", date)
        assert (found.definition.date, events) == (DATE + seconds, [])


async def test_what_changes_a_backup_takes_none_before_the_date(configure, put, berlin):
    put("web")
    for date in ("2026-03-02", "2026-03-01T04", "20260301-040000_3_web"):
        with pytest.raises(NotFoundError, match=f"no backup of web at {date}"):
            await find_backup(configure(a={}), "a", "web", date)


async def test_a_day_in_which_the_clock_is_changed_is_whole(configure, put, berlin):
    last = 1792969199  # 2026-10-25T23:59:59+01:00, of a day of 25 hours
    put("web", last)
    put("web", last + 1)
    config = configure(a={})
    assert (await find_backup(config, "a", "web", "2026-10-25")).definition.date == last
    first_two, second_two = 1792888200, 1792891800  # 02:30, twice
    put("web", first_two)
    put("web", second_two, domain_id=4)
    assert (await find_backup(config, "a", "web", "2026-10-25T02")).definition.date == second_two
    assert (await find_backup(config, "a", "web", "2026-10-25 02:30")).definition.date == first_two
    with pytest.raises(NotFoundError):  # an hour that the spring leaves out
        await find_backup(config, "a", "web", "2026-03-29T02")


async def test_damaged_backup_is_told_with_the_newest_good_one(configure, put, berlin):
    bad = {"verified": {"date": DATE + 90, "ok": False, "digests": True, "error": "bit 7 flipped"}}
    good = put("web", DATE)
    newest = put("web", DATE + 60, **bad)
    config, events = configure(a={}), []
    found = await read(config, events.append, "a", "web", None)
    assert found.definition.name == newest
    (warning,) = events
    assert f"verify found {newest} damaged" in warning.message
    assert f"bit 7 flipped; the newest good one is {good}" in warning.message


async def test_backup_dated_in_the_future_is_told(configure, put):
    now = int(datetime.now(UTC).timestamp())
    past = put("web", now - 60)
    future = put("web", now + 86400)
    config, events = configure(a={}), []
    await read(config, events.append, "a", "web", None)
    assert f"{future}, the newest, is dated in the future" in events[0].message
    assert f"before now the last is {past}" in events[0].message
    events.clear()
    await read(config, events.append, "a", "web", past)
    assert events == []
    await read(config, events.append, "a", "web", future)
    assert events == [], "it was named"


async def test_the_only_backup_is_read_even_if_it_is_dated_in_the_future(configure, put):
    only = put("web", int(datetime.now(UTC).timestamp()) + 86400)
    events = []
    found = await read(configure(a={}), events.append, "a", "web", None)
    assert found.definition.name == only
    (warned,) = events
    assert "is dated in the future" in warned.message
    assert "before now" not in warned.message


XML = """<domain><devices>
<disk type='block'><source dev='/dev/vg/web'/><target dev='vda'/></disk>
<disk type='file'><source file='/i/b.qcow2'/><target dev='vdb'/></disk>
<disk type='file' device='cdrom'><source file='/i/debian.iso'/><target dev='sda'/></disk>
<disk type='file' device='cdrom'><target dev='sdb'/></disk>
<disk type='file'><source file='/i/ro.raw'/><target dev='vdr'/><readonly/></disk>
</devices></domain>"""
WHY = "a block disk: only `method: pull` takes it, while the domain runs"
SKIPPED = {"vda": WHY, "sda": "a cdrom", "sdb": "has no image", "vdr": "read-only"}


async def test_each_disk_that_a_backup_lacks_is_told_with_who_has_it(configure, put, berlin):
    xml = {"domain_xml": XML}
    both = put("web", DATE, disks={"vda": "20260301-031500_3_web_vda.qcow2",
                                   "vdb": "20260301-031500_3_web_vda.qcow2"}, **xml)  # fmt: skip
    name = "20260301-031600_3_web"
    disks = {"vdb": f"{name}_vda.qcow2"}
    skipped = {**SKIPPED, "tpm": "no file can be read"}
    assert put("web", DATE + 60, disks=disks, skipped=skipped, **xml) == name
    config, events = configure(a={}), []
    await read(config, events.append, "a", "web", None)
    assert [event.message for event in events] == [
        f"backup {name}: vda is not in it: {WHY}; {both} has it, of 2026-03-01 03:15:00+01:00",
        f"backup {name}: tpm is not in it: no file can be read; no older backup has it",
    ]
    events.clear()
    await read(config, events.append, "a", "web", None, disks=["vdb"])
    await read(config, events.append, "a", "web", both)
    assert events == []
    with pytest.raises(NotFoundError, match="no disk vda in backup") as caught:
        await read(config, events.append, "a", "web", None, disks=["vda"])
    assert caught.value.hint == f"{both} has it."


async def test_disk_that_nobody_wrote_down_is_missed_too(configure, put, berlin):
    """virt-backup does not say which disks it has left out."""
    put(
        "web",
        domain_xml=XML.replace("vdb", "vdx"),
        disks={"vda": "20260301-031500_3_web_vda.qcow2"},
    )
    events = []
    await read(configure(a={}), events.append, "a", "web", None)
    assert "vdx is not in it" in events[0].message
    assert len(events) == 1


async def test_definition_with_a_wrong_checksum_is_read_only_when_trusted(configure, put, tmp_path):
    name = put("web", domain_xml="<domain/>", checksum="blake3:00", version="1.1.0")
    config, events = configure(a={}), []
    with pytest.raises(DefinitionError, match="--trust-definition"):
        await read(config, events.append, "a", "web", None)
    assert events == []
    found = await read(config, events.append, "a", "web", None, trusted=True)
    assert found.path.local == tmp_path / "t" / "web" / f"{name}.json"
    assert "its checksum is another" in events[0].message
    found.path.local.write_text("{")
    with pytest.raises(DefinitionError):
        await read(config, events.append, "a", "web", None, trusted=True)


@pytest.mark.parametrize(
    ("skipped", "had", "missing"),
    [
        ({"vda": WHY}, ["vda", "vdb"], ("vda",)),
        ({"vda": WHY}, ["vdb"], ()),
        ({"vda": NOT_WANTED}, ["vda", "vdb"], ()),
        ({"sda": "a cdrom"}, ["vda", "vdb"], ()),
        ({}, None, ()),
    ],
)
async def test_disks_that_the_backup_before_has_are_missed(put, tmp_path, skipped, had, missing):
    catalog, file = Catalog(StorageLocation.of(tmp_path / "t")), {}
    for date, devs in ((DATE, had), (DATE + 60, ["vdb"])):
        if devs is not None:
            name = f"{datetime.fromtimestamp(date):%Y%m%d-%H%M%S}_3_web"  # noqa: DTZ006
            file = dict.fromkeys(devs, f"{name}_vda.qcow2")
            assert put("web", date, disks=file, skipped=skipped if date > DATE else {}) == name
    complete = await up_to(catalog, Guest("web"), name)
    assert missing_since_last(complete, name) == missing


def test_what_need_not_be_missed_is_what_libvirt_says_of_it():
    """The reasons are those of domain_xml, which looks at each disk."""
    _, skipped = domain_xml.disks(XML)
    reasons = {disk.dev: disk.reason for disk in skipped}
    assert {dev for dev, why in reasons.items() if why in NOTHING_TO_MISS} == {"sda", "sdb", "vdr"}
    assert domain_xml.writable_devs(XML) == ("vda", "vdb")
