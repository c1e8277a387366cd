import time
from io import StringIO

from msgspec.structs import replace

from fakes.recorded_run import (
    GIB,
    HOSTILE,
    done,
    failed,
    listed,
    progress,
    started,
    summary,
    whole_run,
)
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.events import (
    BackupRemoved,
    BrokenBackup,
    DiskDamaged,
    DiskSkipped,
    FileFormat,
    ListedDomain,
    RemovalFailed,
    RepositoryChecked,
    RepositoryDamaged,
    RestoreDone,
    Summary,
    TargetSpace,
    TargetUnreadable,
    UnclaimedBackups,
    VerifyDone,
    VerifyFailed,
)

MIB = 1 << 20


def report_of(report, *events, width=None):
    out = StringIO()
    for event in events:
        report.add(event)
    report.print(text_console(out, width=width), summary())
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_result_is_a_table_then_what_is_missing_then_the_totals():
    assert report_of(reports.run(), *(event for event, _ in whole_run())) == [
        "domain  backup                 disks  used     stored   duration  quiesced",
        "web     20260701-030000_1_web  2      4.0 GiB  1.0 GiB  52 s      yes",
        "skipped: web vdc: it is a host device",
        "failed: db: the snapshot was refused",
        "1 backup done, 1 failed, 4.0 GiB read, 1.0 GiB stored",
    ]


def test_a_warning_that_scrolled_by_is_counted_at_the_end():
    report, out = reports.run(), StringIO()
    for event in (started(), done()):
        report.add(event)
    report.print(text_console(out, width=80), replace(summary(), warnings=1))
    assert out.getvalue().splitlines()[-1].startswith("1 backup done, 0 failed, 1 warning, ")


def test_result_gives_up_the_long_name_in_a_narrow_terminal():
    lines = report_of(reports.run(), started(), done(quiesced=None), width=60)
    assert lines[0] == "domain  disks  used     stored   duration  quiesced"
    assert lines[1] == "web     1      4.0 GiB  1.0 GiB  52 s      shut off"


def test_two_groups_may_have_a_domain_of_one_name():
    other = replace(done(), group="daily")
    begun = replace(started("web", "vda", "vdb"), group="daily")
    twin = replace(failed("db"), group="daily")
    skipped = DiskSkipped("web", "vdc", "it is a host device", "daily")
    lines = report_of(reports.run(), started(), done(), begun, other, twin, skipped)
    name = "20260701-030000_1_web"
    assert lines[:5] == [
        "group  domain  backup                 disks  used     stored   duration  quiesced",
        f"main   web     {name}  1      4.0 GiB  1.0 GiB  52 s      yes",
        f"daily  web     {name}  2      4.0 GiB  1.0 GiB  52 s      yes",
        "skipped: daily/web vdc: it is a host device",
        "failed: daily/db: the snapshot was refused",
    ]


def test_result_says_in_a_word_why_a_guest_was_not_frozen():
    paused = done(quiesced=False, not_quiesced="guest is paused")
    assert report_of(reports.run(), started(), paused)[1].endswith("no (guest is paused)")
    refused = done(quiesced=False, not_quiesced="freeze: " + "a long story " * 20)
    assert report_of(reports.run(), started(), refused)[1].endswith("52 s      no")


def test_what_was_interrupted_is_not_counted_as_failed():
    lines = report_of(reports.run(), failed("a", cancelled=True), failed("b"))
    assert lines == [
        "failed: b: the snapshot was refused",
        "interrupted: a (undone, guests on their own disks)",
        "0 backups done, 1 failed, 1 interrupted, 0 B read, 0 B stored",
    ]


def interrupted(*events, not_started=()):
    report, out = reports.run(), StringIO()
    for event in events:
        report.add(event)
    end = Summary(False, (), ("db",), 130, "stopped by SIGINT", not_started=not_started)
    report.print(text_console(out), end)
    return out.getvalue().splitlines()


def test_a_signal_says_what_it_did_and_what_was_read_for_nothing():
    events = (
        started("db"),
        progress("db", "vda", 1),
        progress("db", "vda", 2),
        failed("db", cancelled=True),
        failed("app", cancelled=True),
    )
    lines = interrupted(*events, not_started=("mail", HOSTILE))
    assert lines == [
        (
            "interrupted: db, app (undone, guests on their own disks); "
            "not started: mail, evil\\x1b[2J[red]\\u202e"
        ),
        "0 backups done, 0 failed, 2 interrupted, 2.0 GiB read, 0 B stored",
    ]
    only_waiting = interrupted(not_started=("mail",))
    assert only_waiting == ["not started: mail"]


def test_what_a_second_signal_left_behind_is_not_called_undone():
    lines = interrupted(failed("db", cancelled=True, left_pending=True))
    assert lines[0] == "interrupted: db: the snapshot was refused"
    assert "undone" not in "".join(lines)


def test_the_end_says_how_long_it_took_and_how_much_space_is_left():
    report, out = reports.run(), StringIO()
    for event in (started(), progress("web", "vda", 4), done()):
        report.add(event)
    for target in ("/b", "/b2"):
        report.add(TargetSpace(target, 100 * GIB, 41 * GIB + 5))
    report.print(text_console(out), replace(summary(), duration_s=64.0))
    assert out.getvalue().splitlines()[-3:] == [
        "took 1 min 04 s, 64.0 MiB/s",
        "41.0 GiB free in /b, enough for about 41 runs like this",
        "41.0 GiB free in /b2",
    ]


def rest_of(report, *events):
    out = StringIO()
    for event in events:
        report.add(event)
    report.print_rest(text_console(out), summary())
    return out.getvalue().splitlines()


def test_after_a_live_view_only_failures_and_totals_are_printed():
    assert rest_of(reports.run(), *(event for event, _ in whole_run())) == [
        "failed: db: the snapshot was refused",
        "1 backup done, 1 failed, 4.0 GiB read, 1.0 GiB stored",
    ]
    good = VerifyDone("g", "web", "b", "/d", digests=True, data_bytes=1, duration_s=1)
    bad = VerifyFailed("g", "db", "c", "it is cut off", 13)
    assert rest_of(reports.verify(), good, bad, RepositoryDamaged("/t", "a pack is lost", 1)) == [
        "db: c: FAILED: it is cut off",
        "2 backups verified: 1 good, 1 FAILED",
    ]
    removed = BackupRemoved("g", "web", "b", GIB)
    stays = RemovalFailed("g", "web", "c", "it is read-only")
    assert rest_of(reports.clean(dry_run=False), removed, stays) == [
        "1 backup removed, 1.0 GiB freed"
    ]


def test_a_restore_says_where_and_whether_it_was_checked():
    event = RestoreDone(
        "web", "b", "/t", ("vda.qcow2",), verified=False, data_bytes=GIB, duration_s=4
    )
    assert report_of(reports.run(), event) == [
        "b restored to /t: 1.0 GiB in 4.0 s, not verified: the backup carries no digest",
        "  vda.qcow2",
    ]


def test_a_restore_says_what_each_disk_is_and_what_is_kept():
    formats = (
        FileFormat("a.raw", "vda", "raw", GIB, "qcow2"),
        FileFormat("b.raw", "vdb", "raw", GIB, "raw"),
        FileFormat("c.raw", "vdc", "raw", GIB, None),
    )
    kept = "/t/a b.before-restore-1"
    event = RestoreDone(
        "web", "b", "/t", ("a.raw", "b.raw", "c.raw"), verified=True, data_bytes=GIB,
        duration_s=4, kept=(kept,), formats=formats,
    )  # fmt: skip
    assert report_of(reports.run(), event)[1:] == [
        "  a.raw  1.0 GiB, raw (was qcow2: what the guest saw)",
        "  b.raw  1.0 GiB, raw",
        "  c.raw  1.0 GiB, raw",
        f"  kept as it was: {kept}. Without need of it: rm '{kept}'",
    ]


def test_verified_backups_are_told_the_bad_ones_last():
    good = VerifyDone("main", "web", "w", "/t", digests=True, data_bytes=GIB, duration_s=4)
    old = VerifyDone("main", "db", "d", "/t", digests=False, data_bytes=GIB, duration_s=4)
    bad = VerifyFailed("main", "app", "a", "a_vda.raw is \x1b[2Jdamaged", 13)
    assert report_of(reports.verify(), bad, good, old) == [
        "db: d: readable, no digest",
        "web: w: good",
        r"app: a: FAILED: a_vda.raw is \x1b[2Jdamaged",
        "3 backups verified: 1 good, 1 readable, no digest, 1 FAILED",
    ]


def test_backups_that_were_looked_at_are_not_called_good():
    event = VerifyDone("main", "web", "w", "/t", False, GIB, 4, quick=True)
    assert report_of(reports.verify(), event) == [
        "web: w: complete, not read",
        "1 backup verified: 1 complete, not read",
    ]


def test_a_share_of_the_data_is_told_as_such():
    event = VerifyDone("main", "web", "w", "/t", False, GIB, 4, quick=True, partly=True)
    checked = RepositoryChecked("/t", 1, 4000, GIB, 0, 4.0, read_bytes=20 * MIB, read_chunks=80)
    assert report_of(reports.verify(), event, checked) == [
        "web: w: complete, read in part",
        (
            "/t: repository: 80 of 4000 chunks read, at random: 20.0 MiB of 1.0 GiB in 4.0 s; "
            "all packs are there"
        ),
        "1 backup verified: 1 complete, read in part",
    ]


def test_what_is_lost_is_a_table_however_much_it_is():
    ranges = tuple((start * MIB, MIB // 4) for start in range(20))
    lost = DiskDamaged("main", "web", "w", "vda", "w_vda.raw", 25 * MIB // 4, ranges, 5)
    pack = RepositoryDamaged("/t", "pack is missing: /t/x.pack", 25)
    checked = RepositoryChecked("/t", 1, 4000, GIB, 25, 4.0)
    failed = VerifyFailed("main", "web", "w", "much is lost", 13)
    lines = report_of(reports.verify(), lost, pack, checked, failed)
    assert lines[:4] == [
        "web: w: FAILED: much is lost",
        "domain  backup  dev  lost     from        to",
        "web     w       vda  6.2 MiB  0           262143",
        "                              1048576     1310719",
    ]
    assert lines[17:] == [
        "                              15728640    15990783",
        "                              and 9 more",
        "/t: repository: pack is missing: /t/x.pack (25 chunks)",
        "/t: repository: 4000 chunks checked, 25 DAMAGED: 1.0 GiB in 4.0 s",
        "1 backup verified: 1 FAILED",
    ]


def test_list_is_a_table_a_group_newest_first(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    events = (listed("web", 1), listed("web", 2), ListedDomain("main", "idle"))
    lines = report_of(reports.listing(), *events, width=120)
    assert lines[0] == "main: 2 domains, 2 backups"
    assert lines[2] == "idle    no backup"
    assert [line.partition("  never")[0] for line in lines[3:]] == [
        "web     2026-07-02 12:00:00  vda, vdb  tar       10.0 GiB  1.0 GiB  yes     ",
        "web     2026-07-01 12:00:00  vda, vdb  tar       10.0 GiB  1.0 GiB  yes     ",
    ]


def test_list_says_when_a_backup_was_verified():
    when = {"verified_date": "2026-07-03T12:00:00+00:00"}
    bad = replace(listed("web", 3), verified=False, **when)
    good = replace(listed("web", 2), verified=True, **when)
    head, *rows = report_of(reports.listing(), bad, good, listed("web", 1), width=120)[1:]
    column = head.index("verified")
    assert [row[column:].split("  ")[0] for row in rows] == [
        "FAILED 2026-07-03",
        "2026-07-03",
        "never",
    ]


def test_list_short_counts():
    events = [listed("web", 1), listed("db", 1), listed("web", 1, group="test")]
    assert report_of(reports.listing(short=True), *events) == [
        "main: 2 domains, 2 backups",
        "test: 1 domain, 1 backup",
    ]


def test_list_of_a_domain_shows_the_definitions(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    assert report_of(reports.listing(detailed=True), listed("web", 1)) == [
        "main: 1 domain, 1 backup",
        "  web: 1 backup",
        "    2026-07-01 12:00:00  /b/web/20260701-120000_1_web.json",
    ]
    assert len(report_of(reports.listing(detailed=True, short=True), listed("web", 1))) == 2


def test_list_escapes_names_and_says_when_there_is_nothing():
    assert report_of(reports.listing()) == ["no backups"]
    assert "\\x1b[2J" in report_of(reports.listing(), listed(HOSTILE, 1))[2]


def test_list_fits_into_narrow_terminals(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    when = {"verified": True, "verified_date": "2026-07-03T12:00:00+00:00"}
    events = [replace(listed("database", day), pinned=day == 2, **when) for day in (1, 2)]
    head, *lines = report_of(reports.listing(), *events, width=100)[1:]
    same = "12:00:00  vda, vdb  tar       10.0 GiB  1.0 GiB  yes       2026-07-03"
    assert lines == [f"database  2026-07-02 {same}  pinned", f"database  2026-07-01 {same}"]
    assert [lines[0].index(word) for word in ("2026", "vda", "tar", "10.0", "1.0 ", "yes")] == [
        head.index(word) for word in ("date", "disks", "packager", "disk ", "stored", "quiesced")
    ]
    assert report_of(reports.listing(), *events, width=90)[2].startswith(
        "database  2026-07-02 12:00  vda"
    )
    lines = report_of(reports.listing(), *events, listed("web", 1), width=80)[1:]
    assert lines == [
        "domain",
        "  date              disks     packager  disk      quiesced  verified",
        "database",
        "  2026-07-02 12:00  vda, vdb  tar       10.0 GiB  yes       2026-07-03  pinned",
        "  2026-07-01 12:00  vda, vdb  tar       10.0 GiB  yes       2026-07-03",
        "web",
        "  2026-07-01 12:00  vda, vdb  tar       10.0 GiB  yes       never",
    ]
    assert max(map(len, lines)) <= 80


def test_list_measures_wide_characters(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    lines = report_of(reports.listing(), listed("\u5bb6", 1), listed("ab", 1), width=120)
    assert lines[2].startswith("ab      2026")
    assert lines[3].startswith("\u5bb6      2026")


def test_list_prints_dates_that_mean_one_backup(monkeypatch):
    """Without seconds only where no other backup of the domain is of that minute."""
    monkeypatch.setenv("TZ", "UTC")
    first = listed("database", 1)
    other = replace(first, date=first.date.replace(":00+", ":45+"))
    assert "2026-07-01 12:00:45" in "".join(report_of(reports.listing(), first, other, width=60))
    twin = replace(other, domain="web")
    assert "12:00:45" not in "".join(report_of(reports.listing(), first, twin, width=60))


def test_list_prints_the_offset_in_an_hour_that_comes_twice(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        hours = [replace(listed("web", 1), date=f"2026-10-25T0{hour}:30:00+00:00") for hour in "01"]
        lines = report_of(reports.listing(), *hours, width=50)
    finally:
        monkeypatch.undo()
        time.tzset()
    dates = [line.split("  ")[1] for line in lines if "2026" in line]
    assert dates == ["2026-10-25 02:30:00+01:00", "2026-10-25 02:30:00+02:00"]


def test_what_a_backup_lacks_is_in_its_line():
    lacking = replace(listed("web", 1), disks=("vdb",), lacks=("vda", "tpm"))
    assert "vdb, NOT vda, NOT tpm" in report_of(reports.listing(), lacking, width=120)[2]
    assert report_of(reports.listing(detailed=True), lacking)[2].endswith(".json  lacks vda, tpm")
    good = VerifyDone("main", "web", "w", "/t", True, GIB, 4, lacks=("vda",))
    assert report_of(reports.verify(), good) == [
        "web: w: good, LACKS vda",
        "1 backup verified: 1 good, 1 LACKING disks or state",
    ]


def broken(domain, name="b", date="2026-07-02T12:00:00+00:00", error="data missing: vdb"):
    path = f"/t/{domain}/{name}.json"
    return BrokenBackup("main", domain, name, path, error, date=date, date_unix=None, age_s=None)


def test_a_broken_backup_is_a_row_among_the_others(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    events = (
        listed("web", 1), listed("web", 3), broken("web"), broken("web", "copy of b", None),
        broken("new", error="it is not JSON\x1b[2J"),
    )  # fmt: skip
    head, _, *rows = report_of(reports.listing(), *events, width=120)
    assert head == "main: 2 domains, 2 backups, 3 BROKEN"
    assert [" ".join(row.split()) for row in rows] == [
        r"new 2026-07-02 12:00:00 broken: it is not JSON\x1b[2J",
        "web 2026-07-03 12:00:00 vda, vdb tar 10.0 GiB 1.0 GiB yes never",
        "web 2026-07-02 12:00:00 broken: data missing: vdb",
        "web 2026-07-01 12:00:00 vda, vdb tar 10.0 GiB 1.0 GiB yes never",
        "web copy of b broken: data missing: vdb",
    ]


def test_with_its_path_a_broken_backup_is_counted_apart(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    lines = report_of(reports.listing(detailed=True), listed("web", 1), broken("web"))
    assert lines[1:3] == [
        "  web: 1 backup, 1 BROKEN",
        "    2026-07-02 12:00:00  /t/web/b.json  broken: data missing: vdb",
    ]


def test_a_date_beside_a_broken_backup_of_the_same_minute_keeps_its_seconds(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    lines = report_of(
        reports.listing(), listed("web", 2), broken("web", date="2026-07-02T12:00:45+00:00"),
        width=60,
    )  # fmt: skip
    assert "2026-07-02 12:00:45" in "".join(lines)


def test_the_reason_of_a_broken_backup_is_folded(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    why = " ".join(f"word{number}" for number in range(40))
    for width in (40, 80, 120):
        lines = report_of(
            reports.listing(), listed("web", 1), broken("web", error=why), width=width
        )
        assert max(map(len, lines)) <= width
        said = " ".join(" ".join(lines).split())
        assert f"broken: {why}" in said


def test_what_could_not_be_seen_stands_below_the_table():
    broken = BrokenBackup("main", "web", "b", "/t/web/b.json", "data missing: vdb\x1b[2J")
    events = (
        listed("db", 1),
        broken,
        TargetUnreadable("far", "/mnt/far", "target /mnt/far is not a directory"),
        UnclaimedBackups("/t", tuple(f"gone{number}" for number in range(10)), 12),
    )
    lines = report_of(reports.listing(), *events, width=120)
    assert lines[0] == "main: 2 domains, 1 backup, 1 BROKEN"
    assert [*lines[3].split(maxsplit=2)] == ["web", "b", r"broken: data missing: vdb\x1b[2J"]
    assert lines[4:] == [
        "far: TARGET NOT READABLE: target /mnt/far is not a directory",
        (
            "/t: no group means gone0, gone1, gone2, gone3, gone4, gone5, gone6, gone7 and 2 more: "
            "12 backups left alone"
        ),
    ]
    assert report_of(reports.listing(short=True), *events)[0] == lines[0]
    assert report_of(reports.stats(), *events)[-3:] == [
        r"web  b  BROKEN: data missing: vdb\x1b[2J",
        *lines[4:],
    ]
