"""What the reports count, whatever prints it."""

from msgspec.structs import replace

from fakes.recorded_run import GIB, done, failed, listed, started, summary, whole_run
from virtbackup_async.events import (
    BackupRemoved,
    BrokenBackup,
    CleanVerdict,
    DayStats,
    DiskDamaged,
    DomainStats,
    Finding,
    GroupStats,
    Level,
    ListedDomain,
    PendingFound,
    PendingLeft,
    PendingUndone,
    RemovalPlanned,
    RepositorySwept,
    TargetUnreadable,
    VerifyDone,
    VerifyFailed,
)
from virtbackup_async.reporting.reports.clean import CleanReport
from virtbackup_async.reporting.reports.findings import FindingsReport
from virtbackup_async.reporting.reports.listing import ListingReport
from virtbackup_async.reporting.reports.run import RunReport
from virtbackup_async.reporting.reports.stats import StatsReport
from virtbackup_async.reporting.reports.verify import VerifyReport

EXPIRED = CleanVerdict("main", "web", "b1", "", "/b1.json", False, ("no rule keeps it",), 3 * GIB)
KEPT = replace(EXPIRED, backup="b2", keep=True, occupied_bytes=7 * GIB)
FOUND = PendingFound("main", "db", "b3", "/b3.json.pending")
UNDONE = PendingUndone("main", "db", "b3")
GOOD = VerifyDone("main", "web", "b1", "/b1.json", digests=True, data_bytes=1, duration_s=1)


def collected(report, *events):
    for event in (*events, summary()):
        report.add(event)
    return report


def test_a_run_counts_the_cancelled_among_the_failed_and_adds_up_the_bytes():
    events = (event for event, _ in whole_run())
    run = collected(RunReport(), *events, started("a"), done("a"), failed("b", cancelled=True))
    assert (len(run.done), len(run.failed), run.cancelled) == (2, 2, 1)
    assert (run.data_bytes, run.stored_bytes) == (8 * GIB, 2 * GIB)
    assert run.disks["main", "20260701-030000_1_web"] == 2


def test_a_planned_clean_counts_what_would_go_and_nothing_else():
    plan = RemovalPlanned("/t", ("b1",), 3 * GIB)
    planned = collected(CleanReport(dry_run=True), EXPIRED, KEPT, FOUND, plan)
    assert (planned.backups_removed, planned.backups_undone) == (1, 1)
    assert planned.freed_bytes == 3 * GIB
    assert planned.damaged_kept == 0


def test_what_a_damaged_repository_would_free_is_not_known():
    plans = (RemovalPlanned("/t", ("b1",), GIB), RemovalPlanned("/u", ("b2",), None))
    assert collected(CleanReport(dry_run=True), EXPIRED, *plans).freed_bytes is None


def test_a_clean_counts_what_went_and_not_what_stays():
    left = PendingLeft("main", "x", "b4", "/b4.json.pending", "in use")
    swept = RepositorySwept("/t", 5 * GIB, 2 * GIB, 0, 9 * GIB)
    damaged = replace(KEPT, damaged=True)
    events = (EXPIRED, damaged, FOUND, UNDONE, left, BackupRemoved("main", "web", "b1", GIB), swept)
    cleaned = collected(CleanReport(dry_run=False), *events)
    assert (cleaned.backups_removed, cleaned.backups_undone) == (1, 1)
    # A repack writes again what is still needed.
    assert cleaned.freed_bytes == GIB + 5 * GIB - 2 * GIB
    assert cleaned.damaged_kept == 1


def test_verified_backups_are_good_unread_or_without_a_digest():
    events = (
        GOOD,
        replace(GOOD, lacks=("vdb",)),
        replace(GOOD, digests=False),
        replace(GOOD, digests=False, quick=True),
        VerifyFailed("main", "db", "b2", "damaged", 13),
        DiskDamaged("main", "db", "b2", "vda", "b2_vda.raw", 4, ((0, 4),)),
    )
    verified = collected(VerifyReport(), *events)
    assert (verified.good, verified.without_digest, verified.quick) == (2, 1, 1)
    assert (len(verified.failed), len(verified.disks), verified.lacking) == (1, 1, 1)


def test_a_listed_group_has_its_domains_by_name_and_their_newest_backup_first():
    old, new = listed("web", 1), listed("web", 2)
    broken = BrokenBackup("other", "db", "b", "/b.json", "damaged")
    unreadable = TargetUnreadable("gone", "/t", "no such directory")
    events = (old, new, ListedDomain("main", "app"), ListedDomain("main", "web"))
    listing = collected(ListingReport(), *events, broken, unreadable)
    assert list(listing.groups) == ["main", "other"]
    assert listing.groups["main"].sorted() == {"app": [], "web": [new, old]}
    assert listing.groups["main"].backups == 2
    assert (listing.groups["other"].domains, listing.groups["other"].broken) == ({}, [broken])
    assert listing.others == [unreadable]


def test_a_group_of_one_domain_has_no_figures_of_its_own():
    domain = DomainStats("main", "db", 1, 3, 2, 1)
    group = GroupStats("main", 2, 3, 4, 3, 2)
    days = (DayStats("main", "2026-07-01", 1, 3, 2, 1), DayStats("main", "2026-07-02", 1, 3, 2, 0))
    stats = collected(StatsReport(), domain, replace(group, domains=1), group, *days)
    assert stats.amounts == [domain, group]
    assert stats.days == {"main": {"2026-07-01": 1, "2026-07-02": 0}}


def test_findings_are_there_by_level_in_the_order_they_came():
    first, second = (Finding(Level.WARNING, "agent", name, "is silent") for name in ("b", "a"))
    found = collected(FindingsReport(), first, Finding(Level.OK, "target", "/t", "good"), second)
    assert found.of(Level.WARNING) == [first, second]
    assert found.of(Level.PROBLEM) == []
