"""The survey: what is known of real targets, with a libvirt that may be silent."""

import fcntl
import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from fakes.overview_facts import domain_run, run
from fakes.shared_site import SharedSite
from virtbackup_async.catalog.history import FILE, append_run
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.engine.locks import hold_domain
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.engine.survey.survey import survey
from virtbackup_async.errors import ConnectionFailedError
from virtbackup_async.events import RemovalPlanned
from virtbackup_async.files.mounts import Space
from virtbackup_async.host import domain_locks
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.reporting.health import health_of
from virtbackup_async.reporting.overview.build import build_overview
from virtbackup_async.reporting.status import status_of
from virtbackup_async.version import __version__

DATE = 1772331300  # 2026-03-01T02:15:00Z
DAY = 86_400
NOW = datetime.fromtimestamp(DATE + 6 * 3600, UTC)


class Libvirt:
    """Knows names, or does not answer."""

    def __init__(self, *names, answers=True):
        self.names, self.answers = names, answers

    async def domain_names(self):
        if not self.answers:
            raise ConnectionFailedError("libvirt does not answer")
        return self.names


async def surveyed(config, *names, for_page=True, **libvirt):
    runtime = Runtime(config, lambda _: None, Libvirt(*names, **libvirt), now=lambda: NOW)
    return await survey(runtime, for_page=for_page)


def guests(facts):
    return {(guest.group, guest.domain): guest for guest in facts.guests}


async def test_guests_are_those_with_backups_of_libvirt_and_by_name(configure, put):
    put("web")
    put("db")
    put("other")
    config = configure(a={"hosts": ["r:^(web|www)$", "missing", "!missing2"]}, b={"hosts": ["db"]})
    found = guests(await surveyed(config, "www", "db", "lab"))
    assert {key: (g.is_known, len(g.backups)) for key, g in found.items()} == {
        ("a", "missing"): (False, 0),
        ("a", "web"): (False, 1),
        ("a", "www"): (True, 0),
        ("b", "db"): (True, 1),
    }


async def test_what_no_group_means_is_found_on_both_sides(configure, put):
    put("renamed")
    config = configure(a={"hosts": ["web", "!excluded"]})
    facts = await surveyed(config, "web", "lab", "excluded")
    assert facts.unclaimed == ("excluded", "lab")
    assert facts.targets[0].unclaimed == ("renamed",)


async def test_a_silent_libvirt_is_a_fact(configure, put):
    put("web")
    facts = await surveyed(configure(a={"hosts": ["web", "db", "r:x"]}), answers=False)
    assert facts.hypervisor_error == "libvirt does not answer"
    assert {key[1]: g.is_known for key, g in guests(facts).items()} == {"db": None, "web": None}
    assert facts.unclaimed == ()


async def test_a_target_that_cannot_be_read_is_a_fact(tmp_path, configure):
    config = configure(a={"hosts": ["web"]}, b={"hosts": ["r:^d"], "target": str(tmp_path / "no")})
    facts = await surveyed(config, "web", "db")
    away = next(target for target in facts.targets if target.path == str(tmp_path / "no"))
    assert "No such file" in away.error
    assert away.groups == ("b",)
    overview = build_overview(facts)
    assert overview.verdict.sentence.startswith(f"The target {tmp_path / 'no'} cannot be read")
    assert [g.domain for g in overview.guests if g.target == away.path] == ["db"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("groups: {}", "Nothing is backed up: the configuration has no groups."),
        ("groups: {a: {hosts: [web]}}", "Nothing is backed up: no group has a target."),
    ],
)
async def test_an_empty_configuration_is_no_error(tmp_path, text, sentence):
    path = tmp_path / "config.yml"
    path.write_text(text)
    facts = await surveyed(load_config(path), "web")
    assert build_overview(facts).verdict.sentence == sentence
    assert facts.program == ("virtbackup", "-c", str(path))


async def test_what_a_definition_says(configure, put):
    put(
        "web",
        version="1.0.0",
        quiesced=False,
        not_quiesced="no guest agent",
        frozen_ms=7,
        pinned=True,
        verified={"date": DATE + 9, "ok": True, "digests": True},
        skipped={"vdb": "its image is missing", "sda": "a CD or a floppy"},
        images={
            "vda": {
                "file": "20260301-021500_3_web_vda.qcow2", "source": "/i/web.qcow2",
                "format": "raw", "size_bytes": 900, "data_bytes": 500, "stored_bytes": 300,
                "digest": "blake3-256k:00",
                "reading": {
                    "checkpoint": None, "base": None, "reason": "its bitmap was lost",
                    "full_date": DATE, "read_bytes": 450, "audited_bytes": 5, "audit_failed": True,
                },
            }
        },
    )  # fmt: skip
    (guest,) = (await surveyed(configure(a={"hosts": ["web"]}))).guests
    (backup,) = guest.backups
    assert (backup.name, backup.date) == ("20260301-021500_3_web", DATE)
    assert (backup.verified, backup.verified_date, backup.pinned) == (True, DATE + 9, True)
    assert (backup.quiesced, backup.not_quiesced, backup.frozen_ms) == (False, "no guest agent", 7)
    assert ("vdb", "its image is missing") in backup.lacks
    assert (backup.size_bytes, backup.data_bytes, backup.stored_bytes) == (900, 500, 300)
    assert (backup.read_bytes, backup.full_reason) == (450, "its bitmap was lost")
    assert (backup.audited_bytes, backup.audit_failed) == (5, True)


async def test_what_expires_and_what_is_broken(tmp_path, configure, put):
    for days in range(9):
        put("web", DATE - days * DAY)
    broken = put("web", DATE - 20 * DAY)
    (tmp_path / "t/web" / f"{broken}_vda.qcow2").unlink()
    config = configure(
        a={"hosts": ["web"], "hourly": 0, "daily": 3, "weekly": 0, "monthly": 0, "yearly": 0}
    )
    facts = await surveyed(config, "web")
    (guest,) = facts.guests
    assert [backup.expires for backup in guest.backups] == [True] * 6 + [False] * 3
    assert [(one.name, one.date) for one in guest.broken] == [(broken, DATE - 20 * DAY)]
    (calendar,) = facts.calendars
    assert (calendar.group, calendar.domain, len(calendar.backups)) == ("a", "web", 9)
    today = NOW.astimezone().toordinal()
    assert [kept.goes for kept in calendar.backups] == [
        *[today] * 6, today + 1, today + 2, today + 3,
    ]  # fmt: skip


async def test_the_history_and_what_of_it_is_damaged(tmp_path, configure, put):
    put("web")
    config = configure(a={"hosts": ["web"]})
    one = run(0, [domain_run(group="a")])
    await append_run(StorageLocation.of(tmp_path / "t"), one, create=True)
    with (tmp_path / "t" / FILE).open("a") as file:
        file.write("rubbish\n")
    (target,) = (await surveyed(config)).targets
    assert target.history == (one,)
    assert target.problems == ("1 lines of the history cannot be read",)
    assert target.used_bytes > 0
    assert target.free_bytes > 0


async def test_a_history_that_is_no_file_hides_nothing_else(tmp_path, configure, put):
    put("web")
    (tmp_path / "t" / FILE).mkdir()
    facts = await surveyed(configure(a={"hosts": ["web"]}))
    assert facts.targets[0].problems[0].startswith("the history cannot be read: ")
    assert len(facts.guests[0].backups) == 1


PENDING = {
    "name": "20260301-021500_3_web",
    "domain_id": 3,
    "domain_name": "web",
    "domain_xml": "<domain/>",
    "disks": {},
    "version": "1.1.0",
    "date": DATE,
    "packager": {"type": "directory", "opts": {}},
    "uuid": "b9ef5a09-6e0f-4a44-9e2b-5e5f7a1d2c3b",
}


async def test_a_killed_backup_is_a_leftover_and_a_running_one_runs(tmp_path, configure):
    config = configure(a={"hosts": ["web"]})
    (tmp_path / "t/web").mkdir()
    (tmp_path / "t/web" / f"{PENDING['name']}.json.pending").write_text(json.dumps(PENDING))
    facts = await surveyed(config, "web")
    assert facts.running == ()
    assert [(left.domain, left.message) for left in facts.leftovers] == [
        ("web", f"backup {PENDING['name']} was killed")
    ]
    assert facts.leftovers[0].command[-2:] == ("clean", "-b")
    runtime = Runtime(config, lambda _: None, Libvirt("web"), now=lambda: NOW)
    async with hold_domain(runtime.host.images, "web", PENDING["uuid"], "backup of group a"):
        facts = await survey(runtime)
    (running,) = facts.running
    assert (running.domain, running.backup) == ("web", PENDING["name"])
    assert (running.doing, running.pid) == ("backup of group a", os.getpid())
    assert facts.leftovers == ()


@pytest.mark.parametrize(("ahead_s", "since"), [(-60, DATE - 60), (1e9, NOW.timestamp())])
async def test_a_backup_of_another_program_runs_since_its_own_date(
    tmp_path, configure, ahead_s, since
):
    config = configure(a={"hosts": ["web"]})
    (tmp_path / "t/web").mkdir()
    pending = json.dumps(PENDING | {"date": int(DATE + ahead_s)})
    (tmp_path / "t/web" / f"{PENDING['name']}.json.pending").write_text(pending)
    domain_locks.SYSTEM_DIRECTORY.mkdir(mode=0o700)
    lock = domain_locks.SYSTEM_DIRECTORY / f"virtbackup-{PENDING['uuid']}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (running,) = (await surveyed(config, "web")).running
    assert (running.date, running.doing, running.pid) == (since, "backup", os.getpid())


async def test_status_and_check_say_the_same_without_what_only_a_page_shows(tmp_path, monkeypatch):
    """A monitoring runs ``check`` every few minutes: the repository may have terabytes."""
    site = SharedSite(tmp_path)
    await site.store_chunks([1, 2, 3])
    await site.store_chunks([1, 2, 4], day=1)
    path = tmp_path / "config.yml"
    path.write_text(f"groups: {{a: {{hosts: [web, db], target: {site.target}, daily: 1}}}}")
    config = load_config(path)
    # Other programs write to this machine's disk between the two.
    monkeypatch.setattr("virtbackup_async.files.mounts.space_at", lambda _: Space(9, 4))
    whole = build_overview(await surveyed(config, "web"), UTC)
    for name in ("_repository", "_retention"):
        monkeypatch.setattr(f"virtbackup_async.engine.survey.survey.{name}", refuse)
    quick = build_overview(await surveyed(config, "web", for_page=False), UTC)
    assert status_of(quick) == status_of(whole)
    assert health_of(quick) == health_of(whole)
    assert whole.calendars
    assert whole.totals.stored_bytes


async def test_what_clean_would_free_is_what_its_dry_run_says(tmp_path):
    site = SharedSite(tmp_path)
    for day, chunks in enumerate(([1, 2, 3], [1, 2, 4], [1, 2, 5])):
        await site.store_chunks(chunks, day=day)
    path = tmp_path / "config.yml"
    rules = "hourly: 0, daily: 1, weekly: 0, monthly: 0, yearly: 0"
    path.write_text(f"groups: {{a: {{hosts: [web], target: {site.target}, {rules}}}}}")
    config = load_config(path)
    told = []
    runtime = Runtime(config, told.append, Libvirt("web"), now=lambda: NOW + timedelta(days=9))
    (target,) = (await survey(runtime)).targets
    await run_clean(runtime, CleanRequest((), dry_run=True))
    (planned,) = (event for event in told if isinstance(event, RemovalPlanned))
    assert len(planned.backups) == 2
    assert target.expired_bytes == planned.freed_bytes > 0
    for file in (site.target / ".virtbackup-repository").rglob("*.index"):
        file.write_bytes(b"damaged")
    (target,) = (await survey(runtime)).targets
    assert target.expired_bytes is None
    assert any("what clean would free" in problem for problem in target.problems)


def refuse(*_):
    raise AssertionError("it is read for a page alone")


async def test_a_repository_is_measured_and_a_damaged_one_hides_nothing(tmp_path):
    site = SharedSite(tmp_path)
    await site.store_chunks([1, 2, 3])
    await site.store_chunks([1, 2, 4], day=1)
    path = tmp_path / "config.yml"
    path.write_text(f"groups: {{a: {{hosts: [web], target: {site.target}}}}}")
    config = load_config(path)
    (target,) = (await surveyed(config, "web")).targets
    assert target.repository.chunk_bytes * 6 == target.repository.data_bytes * 4
    assert target.repository.stored_bytes > 0
    for segment in (site.target / ".virtbackup-repository").rglob("*.index"):
        segment.write_bytes(b"damaged")
    (target,) = (await surveyed(config, "web")).targets
    assert target.repository is None
    assert target.problems[0].startswith("the repository cannot be measured: ")


async def test_the_survey_says_when_where_and_by_which_version(configure, put):
    put("web")
    facts = await surveyed(configure(a={"hosts": ["web"], "autostart": True}, b={"hosts": []}))
    assert facts.at == NOW.timestamp()
    assert facts.version == __version__
    assert facts.groups == (("a", True), ("b", False))
