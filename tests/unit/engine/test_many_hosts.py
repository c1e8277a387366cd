"""Hosts that share a target, and do not know each other: whose guest is it, and whose backups?

Each host is a site of its own, with its own domain `fake` and its own state; the target is one.
"""

import time
from contextvars import ContextVar
from io import StringIO
from pathlib import Path

import pytest
from anyio import CancelScope, create_task_group
from anyio.from_thread import start_blocking_portal

from fakes.other_site import IMAGE, KINDS, OtherSite, other_site
from fakes.recorded_run import summary
from fakes.site import NOW
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.engine.backup.bases import find_candidates
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.forget import ForgetRequest, run_forget
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.doctor.examination import DoctorRequest, run_doctor
from virtbackup_async.engine.inventory.chosen_backup import (
    FindRequest,
    PinRequest,
    find_backup_to_read,
    set_pinned,
)
from virtbackup_async.engine.inventory.listing import ListRequest, run_list
from virtbackup_async.engine.inventory.show import ShowRequest, run_show
from virtbackup_async.engine.inventory.stats import StatsRequest, run_stats
from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup
from virtbackup_async.engine.survey.survey import survey
from virtbackup_async.errors import ConfigError, NotFoundError
from virtbackup_async.events import BackupDone, BackupFailed, DisksHeld
from virtbackup_async.model.guest import Guest
from virtbackup_async.packagers.codecs.cpu_shares import CpuShares
from virtbackup_async.packagers.registry import open_writer
from virtbackup_async.reporting.health import health_of
from virtbackup_async.reporting.metrics import samples_of_overview
from virtbackup_async.reporting.overview.build import build_overview

A, B, C = (f"0b1c2d3e-4f50-4617-8829-3a4b5c6d7e8{digit}" for digit in "abc")
EMPTY = dict.fromkeys(("hourly", "daily", "weekly", "monthly", "yearly"), 0)
OLD = Path(__file__).parents[2] / "compat" / "data" / "shared-1" / "target"


class Hosts:
    """Hosts with one target.

    Attributes:
        sites: by the host's name.
        storage: the target's.
    """

    def __init__(self, root, monkeypatch, first):
        self._root, self._monkeypatch = root, monkeypatch
        self.storage, self.place = first.storage, first.target_place
        self.sites = {}

    def add(self, name, uuid):
        root = self._root / name
        root.mkdir()
        site = OtherSite(root, self.storage)
        site.target_place = self.place
        site.domain.uuid = uuid
        site.image.write_bytes(name.encode().ljust(65536, b".") + IMAGE[65536:])
        self.sites[name] = site
        return site

    def on(self, name):
        """Be on that host from now on."""
        site = self.sites[name]
        self._monkeypatch.setattr("socket.gethostname", lambda: name)
        self._monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(site.state))
        signs = site.root / "signs"
        signs.mkdir(exist_ok=True)
        self._monkeypatch.setattr("virtbackup_async.host.signs._DIRECTORY", signs)
        return site

    async def back_up(self, name):
        return await self.on(name).back_up(**EMPTY)


@pytest.fixture(params=[*KINDS, "encrypted"])
def hosts(request, tmp_path, monkeypatch):
    first = other_site(request, tmp_path, monkeypatch)
    return Hosts(tmp_path, monkeypatch, first)


of_buckets = pytest.mark.parametrize("hosts", KINDS, indirect=True)
in_memory = pytest.mark.parametrize("hosts", ["memory"], indirect=True)


@pytest.fixture
def two(hosts):
    """Two hosts, each with a guest of the same name."""
    hosts.add("berlin", A)
    hosts.add("paris", B)
    return hosts


async def listed(site, *words):
    listing = await run_list(site.runtime(), ListRequest(words))
    return [(one.host, one.uuid, one.backup) for one in listing.backups]


async def restored(site, name, place):
    found = await find_backup_to_read(site.runtime(), FindRequest(None, name))
    await restore_backup(site.runtime(), RestoreRequest(found.definition, found.path.parent, place))
    (image,) = place.glob("*.raw")
    return image.read_bytes()


async def test_two_guests_of_one_name_have_places_of_their_own(two):
    first, second = await two.back_up("berlin"), await two.back_up("paris")
    assert first.definition.split("/")[-2] == f"fake.{A}"
    assert second.definition.split("/")[-2] == f"fake.{B}"
    both = [("berlin", A, first.backup), ("paris", B, second.backup)]
    for name in ("berlin", "paris"):
        assert sorted(await listed(two.on(name))) == both


async def test_a_name_of_two_guests_is_refused_with_names_for_each(two):
    await two.back_up("berlin")
    await two.back_up("paris")
    site = two.on("paris")
    with pytest.raises(ConfigError, match="'fake' can mean 2 backups") as refused:
        await run_show(site.runtime(), ShowRequest("fake"))
    words = ("all/berlin/fake@latest", "all/paris/fake@latest")
    assert refused.value.hint == f"Write one of '{words[0]}', '{words[1]}'."
    assert refused.value.exit_code == 2
    for group in (None, "all"):
        with pytest.raises(ConfigError, match="'fake' can mean 2 backups"):
            await run_show(site.runtime(), ShowRequest("fake", group))


@pytest.mark.parametrize("name", ["{}/fake", "{}/fake@latest", "all/{}/fake", "{}/fake@today"])
async def test_each_of_them_is_restored_by_its_host(two, tmp_path, name):
    await two.back_up("berlin")
    await two.back_up("paris")
    for host in ("berlin", "paris"):
        image = await restored(two.on("paris"), name.format(host), tmp_path / "there" / host)
        assert image == two.sites[host].image.read_bytes()


async def test_each_of_them_is_restored_by_its_uuid_and_by_the_backups_own_name(two, tmp_path):
    done = {"berlin": await two.back_up("berlin"), "paris": await two.back_up("paris")}
    site = two.on("paris")
    for host, uuid in (("berlin", A), ("paris", B)):
        for number, name in enumerate((uuid, uuid.upper(), f"{uuid}@{done[host].backup}")):
            image = await restored(site, name, tmp_path / f"{host}{number}")
            assert image == two.sites[host].image.read_bytes()


@in_memory
async def test_lists_take_hosts_and_uuids(two):
    first, second = await two.back_up("berlin"), await two.back_up("paris")
    site = two.on("paris")
    berlin, paris = ("berlin", A, first.backup), ("paris", B, second.backup)
    assert await listed(site, "berlin/fake") == [berlin]
    assert await listed(site, B) == [paris]
    assert sorted(await listed(site, "fake")) == [berlin, paris]
    assert await listed(site, "all", "paris/fake") == [paris]
    with pytest.raises(NotFoundError, match="rome/fake"):
        await listed(site, "rome/fake")
    assert await site.verify(groups=("berlin/fake",)) == [first.backup]
    assert await site.verify(groups=(A,)) == [first.backup]
    assert await site.verify(groups=("fake",)) == sorted([first.backup, second.backup])


@in_memory
async def test_commands_on_one_backup_take_hosts(two):
    first, second = await two.back_up("berlin"), await two.back_up("paris")
    site = two.on("paris")
    pinned = await set_pinned(site.runtime(), PinRequest(None, "paris/fake"))
    assert pinned.backup == second.backup
    shown = await run_show(site.runtime(), ShowRequest("berlin/fake"))
    assert shown.backup == first.backup
    assert any(f"berlin/fake@{first.backup}" in command for command in shown.commands)
    with pytest.raises(ConfigError, match="pinned"):
        await run_forget(site.runtime(), ForgetRequest(["paris/fake@latest"]))


@of_buckets
async def test_each_host_cleans_its_own_guest_by_its_own_rules(two):
    kept, removed = {}, {}
    for host in ("berlin", "paris"):
        removed[host] = (await two.back_up(host)).backup
        kept[host] = (await two.back_up(host)).backup
    for host in ("berlin", "paris"):
        run = await run_clean(two.on(host).runtime(), CleanRequest())
        assert [one.backup for one in run.removed] == [removed[host]]
    assert sorted(backup for _, _, backup in await listed(two.on("paris"))) == sorted(kept.values())


@of_buckets
async def test_the_backups_of_another_host_are_neither_cleaned_nor_forgotten(two):
    for _ in range(2):
        done = await two.back_up("berlin")
    site = two.on("paris")
    run = await run_clean(site.runtime(), CleanRequest())
    assert run.removed == ()
    assert {one.reasons for one in run.verdicts} == {
        ("not understood: it belongs to the host berlin",)
    }
    with pytest.raises(ConfigError, match="it belongs to the host berlin"):
        await run_forget(site.runtime(), ForgetRequest([f"fake@{done.backup}"]))


@in_memory
async def test_a_keeper_cleans_the_guests_of_all_hosts(two):
    two.storage.now_s = time.time()
    first = await two.back_up("berlin")
    await two.back_up("berlin")
    keeper = two.on("paris")
    keeper.group |= {**EMPTY, "protect": "1h"}
    two.storage.now_s += 3700
    run = await run_clean(keeper.runtime(), CleanRequest())
    assert [one.backup for one in run.removed] == [first.backup]


@pytest.mark.parametrize("hosts", ["encrypted"], indirect=True)
async def test_in_an_encrypted_directory_the_admin_decides(two):
    """Who may write to a directory is up to its admin, so there is no owner there."""
    first = await two.back_up("berlin")
    await two.back_up("berlin")
    two.sites["paris"].group |= EMPTY
    run = await run_clean(two.on("paris").runtime(), CleanRequest())
    assert [one.backup for one in run.removed] == [first.backup]


async def test_a_guest_that_migrated_takes_its_backups_along(hosts, tmp_path):
    hosts.add("berlin", A)
    hosts.add("paris", A)
    first, second = await hosts.back_up("berlin"), await hosts.back_up("paris")
    site = hosts.on("paris")
    assert await listed(site, "paris/fake") == [
        ("berlin", A, first.backup),
        ("paris", A, second.backup),
    ]
    assert await restored(site, "fake", tmp_path / "new") == site.image.read_bytes()
    run = await run_clean(site.runtime(), CleanRequest())
    assert [one.backup for one in run.removed] == [first.backup]


@in_memory
async def test_a_guest_is_found_by_the_host_that_it_left_until_that_has_another(hosts):
    hosts.add("berlin", A)
    hosts.add("paris", A)
    await hosts.back_up("berlin")
    second = await hosts.back_up("paris")
    assert (await listed(hosts.on("paris"), "berlin/fake"))[-1] == ("paris", A, second.backup)
    hosts.sites["berlin"].domain.uuid = C
    third = await hosts.back_up("berlin")
    assert await listed(hosts.on("paris"), "berlin/fake") == [("berlin", C, third.backup)]


@in_memory
async def test_a_guest_that_was_made_anew_is_another_one(hosts):
    """Its rules never remove the backups of the one before, and a restore asks which is meant."""
    site = hosts.add("berlin", A)
    first = await hosts.back_up("berlin")
    site.domain.uuid = B
    second = await hosts.back_up("berlin")
    run = await run_clean(site.runtime(), CleanRequest())
    assert run.removed == ()
    with pytest.raises(ConfigError, match="'fake' can mean 2 backups") as refused:
        await run_show(site.runtime(), ShowRequest("fake"))
    assert refused.value.hint == f"Write one of 'all/{A}@latest', 'all/{B}@latest'."
    for uuid, done in ((A, first), (B, second)):
        assert (await run_show(site.runtime(), ShowRequest(uuid))).backup == done.backup


@in_memory
async def test_the_newest_is_that_of_each_guest(two):
    await two.back_up("berlin")
    newest = [(await two.back_up(host)).backup for host in ("berlin", "paris")]
    listing = await run_list(two.on("paris").runtime(), ListRequest(latest=True))
    assert [one.backup for one in listing.backups] == newest
    assert [one.guest for one in listing.backups] == ["berlin/fake", "paris/fake"]


@in_memory
async def test_each_guest_is_measured_by_itself(two):
    for host in ("berlin", "berlin", "paris"):
        await two.back_up(host)
    stats = await run_stats(two.on("paris").runtime(), StatsRequest())
    assert [(one.domain, one.host, one.uuid, one.backups) for one in stats.domains] == [
        ("fake", "berlin", A, 2),
        ("fake", "paris", B, 1),
    ]
    assert stats.groups[0].domains == 2


def printed(print_report, *events):
    out = StringIO()
    report = print_report()
    for event in events:
        report.add(event)
    report.print(text_console(out), summary(0))
    return [line.split() for line in out.getvalue().splitlines()]


@in_memory
@pytest.mark.parametrize("by_domain", [False, True])
async def test_tables_have_a_column_for_hosts_only_where_there_are_several(two, by_domain):
    await two.back_up("berlin")
    site = two.on("berlin")

    async def table(words=()):
        await run_list(site.runtime(), ListRequest(words))
        _, *lines = printed(lambda: reports.listing(by_domain=lambda: by_domain), *site.events)
        return lines

    head, row, *_ = await table()
    assert head[:2] == ["domain", "newest" if by_domain else "date"]
    assert row[0] == "fake"
    await two.back_up("paris")
    site = two.on("berlin")
    head, *rows = await table()
    assert head[:2] == ["domain", "host"]
    assert [row[:2] for row in rows[:2]] == [["fake", "berlin"], ["fake", "paris"]]
    two.sites["berlin"].domain.uuid = C
    await two.back_up("berlin")
    head, *rows = await table()
    assert head[:3] == ["domain", "host", "uuid"]
    assert sorted(row[2] for row in rows[:3]) == [A, B, C]


@in_memory
async def test_a_status_does_not_take_another_hosts_guest_for_its_own(two):
    """The guest of this host has no backup, however many another guest of its name has."""
    await two.back_up("berlin")
    site = two.on("paris")
    facts = await survey(site.runtime(), for_page=False)
    assert [(one.key, one.host, len(one.backups)) for one in facts.guests] == [
        (("all", "fake"), None, 0),
        (("all", "berlin/fake"), "berlin", 1),
    ]
    await two.back_up("paris")
    facts = await survey(two.on("paris").runtime())
    overview = build_overview(facts)
    assert {(one.name, one.host, one.backups) for one in overview.guests} == {
        ("berlin/fake", "berlin", 1),
        ("paris/fake", None, 1),
    }
    samples = [sample for sample, _ in samples_of_overview(overview)]
    assert len(samples) == len(set(samples))
    assert health_of(overview, ["paris/fake"]).guests == 1
    assert health_of(overview, [A]).guests == 1


@in_memory
async def test_doctor_asks_for_a_backup_of_this_hosts_guest(two):
    await two.back_up("berlin")
    findings = await run_doctor(two.on("paris").runtime(), DoctorRequest())
    assert "no_backup_yet" in {one.code for one in findings}
    await two.back_up("paris")
    findings = await run_doctor(two.on("paris").runtime(), DoctorRequest())
    assert [one.subject for one in findings if one.code == "backup_age"] == ["paris/fake"]
    assert "no_backup_yet" not in {one.code for one in findings}


@of_buckets
async def test_hosts_work_at_once_and_each_keeps_its_own(two, monkeypatch, tmp_path):
    """Backups, cancelled ones, cleans and verifies of three hosts, two of them with one name."""
    two.add("rome", C).domain.name = "db"
    here = ContextVar("host")
    monkeypatch.setattr("socket.gethostname", lambda: here.get("nowhere"))
    kept = {name: [] for name in two.sites}

    async def work(name):
        here.set(name)
        site = two.sites[name]
        site.settings["state_directory"] = str(site.state)
        site.group |= {**EMPTY, "keep_last": 2, "method": "snapshot"}
        for number in range(4):
            site.image.write_bytes(f"{name}{number}".encode().ljust(65536, b".") + IMAGE[65536:])
            kept[name].append((await site.back_up()).backup)
            with CancelScope() as scope:
                runtime = site.runtime()
                site.on = {lambda event: isinstance(event, DisksHeld): scope.cancel}
                await run_backup(runtime, BackupRequest())
            await run_clean(site.runtime(), CleanRequest())
            await site.verify(groups=(f"{name}/{site.domain.name}",))

    async with create_task_group() as hosts_at_work:
        for name in two.sites:
            hosts_at_work.start_soon(work, name)
    here.set("berlin")
    for name, site in two.sites.items():
        word = f"{name}/{site.domain.name}"
        assert [one for _, _, one in await listed(two.sites["berlin"], word)] == kept[name][-2:]
        image = await restored(two.sites["berlin"], word, tmp_path / "restored" / name)
        assert image == site.image.read_bytes()
    good = await two.sites["berlin"].verify()
    assert good == sorted(backup for of_host in kept.values() for backup in of_host[-2:])


# The hostile case: a clone has the UUID of its original, and both exist at once.


@in_memory
async def test_a_clone_with_the_same_uuid_has_one_history_and_a_warning(hosts, tmp_path):
    hosts.add("berlin", A)
    hosts.add("paris", A)
    done = [("berlin", await hosts.back_up("berlin"))]
    assert hosts.sites["berlin"].warnings() == []
    for host in ("paris", "berlin", "paris"):
        done.append((host, await hosts.back_up(host)))
        warned = [one for one in hosts.sites[host].warnings() if "has backed it up since" in one]
        assert len(warned) == (len(done) > 2)
    for number, (host, one) in enumerate(done):
        image = await restored(hosts.on("berlin"), f"fake@{one.backup}", tmp_path / f"{number}")
        assert image == hosts.sites[host].image.read_bytes()
    assert [host for host, _, _ in await listed(hosts.on("berlin"), "fake")] == [
        host for host, _ in done
    ]


@in_memory
async def test_two_backups_of_one_name_never_replace_each_other(hosts, tmp_path):
    """Both hosts back up the same UUID, with the same id of the domain, in the same second."""
    sites = [hosts.add(name, A) for name in ("berlin", "paris")]
    inner, outer = sites
    inner.image.write_bytes(IMAGE[::-1])

    def now():
        return NOW

    async def back_up(site):
        site.group |= {"method": "snapshot"}
        await run_backup(site.runtime(now=now), BackupRequest())

    def other_is_first():
        hosts.on("berlin")
        with start_blocking_portal() as portal:
            portal.call(back_up, inner)
        hosts.on("paris")

    hosts.on("paris")
    outer.on = {lambda event: isinstance(event, DisksHeld): other_is_first}
    await back_up(outer)
    (done,) = inner.of(BackupDone)
    (failed,) = outer.of(BackupFailed)
    assert "exists" in failed.error
    assert await restored(outer, f"fake@{done.backup}", tmp_path / "there") == IMAGE[::-1]
    assert outer.domain.live == {"vda": outer.image}


# Backups of versions that put all guests of a name into one directory.


OLD_UUID = "0b1c2d3e-4f50-4617-8829-3a4b5c6d7e8f"
FIRST, SECOND = "20260301-021500_1_web", "20260302-021500_1_web"


@pytest.fixture
def old(hosts):
    """A host whose guest has backups in the old place, by the frozen sample."""
    for path in sorted(OLD.rglob("*")):
        name = str(path.relative_to(OLD))
        if path.is_file():
            hosts.storage.put_new(name, path.read_bytes())
        else:
            hosts.storage.make_directory(name)
    site = hosts.add("berlin", OLD_UUID)
    site.domain.name = "web"
    return hosts


@of_buckets
async def test_old_backups_are_read_where_they_are(old):
    site = old.on("berlin")
    assert await listed(site) == [("berlin", OLD_UUID, FIRST), ("berlin", OLD_UUID, SECOND)]
    assert await site.verify() == [FIRST, SECOND]
    assert (await run_show(site.runtime(), ShowRequest(OLD_UUID))).backup == SECOND


@of_buckets
async def test_new_backups_have_one_history_with_the_old_ones(old):
    done = await old.back_up("berlin")
    assert done.definition.split("/")[-2] == f"web.{OLD_UUID}"
    site = old.sites["berlin"]
    assert [backup for _, _, backup in await listed(site, "web")] == [FIRST, SECOND, done.backup]
    run = await run_clean(site.runtime(), CleanRequest())
    assert [one.backup for one in run.removed] == [FIRST, SECOND]
    assert await site.verify() == [done.backup]


@of_buckets
async def test_a_new_backup_is_based_on_one_in_the_old_place(old):
    site = old.on("berlin")
    catalog = Catalog(old.place, site.state)
    info = await site.domain.info()
    base = (await find_candidates(catalog, info))["vda"].choose().base()
    assert (base.backup, base.directory) == (SECOND, "web")
    directory = catalog.directory(Guest("web", OLD_UUID))
    old.storage.make_directory(directory.stored_name)
    packager = site.configure().groups["all"].packager
    async with (
        open_writer(packager, directory, "new", CpuShares(1)) as writer,
        writer.open_base(base.file, base.directory) as image,
    ):
        assert image.size_bytes == 4 * 256 * 1024


@of_buckets
async def test_another_guest_of_the_name_leaves_the_old_backups_alone(old):
    site = old.add("paris", B)
    site.domain.name = "web"
    await old.back_up("paris")
    done = await old.back_up("paris")
    run = await run_clean(old.on("paris").runtime(), CleanRequest())
    assert len(run.removed) == 1
    assert await listed(old.on("paris"), "berlin/web") == [
        ("berlin", OLD_UUID, FIRST),
        ("berlin", OLD_UUID, SECOND),
    ]
    assert await listed(old.on("paris"), "paris/web") == [("paris", B, done.backup)]
