"""The report of ``copy``: what was copied, what failed, and what a dry run would do."""

import io

from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.events import CopyDone, CopyFailed, CopyPlanned, CopySkipped, Summary

MIB = 1 << 20
MOVED = "2.0 MiB read, 10.0 MiB were there, 1.0 MiB stored"


def summary(*, ok=True):
    return Summary(ok=ok, done=(), failed=(), exit_code=0 if ok else 3)


def shown(make, *events, ok=True):
    out = io.StringIO()
    report = make()
    for event in events:
        report.add(event)
    report.print(text_console(out), summary(ok=ok))
    return out.getvalue()


def done(backup="b1"):
    return CopyDone("all", "web", backup, "/c", "", 12 * MIB, 2 * MIB, 10 * MIB, MIB, 3.0)


def test_each_copy_has_a_row_and_all_have_totals():
    text = shown(
        reports.copies,
        done(),
        CopySkipped("all", "web", "b0", "/c", "it is there already"),
        CopyFailed("all", "db", "d1", "/c", "chunk is\x1b damaged", 13),
        CopyFailed("all", "db", "d2", "/c", "cancelled", 1, cancelled=True),
        ok=False,
    )
    assert text.splitlines() == [
        "domain  backup  copied   was there  stored   duration",
        "web     b1      2.0 MiB  10.0 MiB   1.0 MiB  3.0 s   ",
        "db: d1: copy to /c failed: chunk is\\x1b damaged",
        "db: d2: copy to /c interrupted and undone",
        f"1 backup copied to /c, 1 skipped, 2 FAILED, {MOVED}",
    ]


def test_a_dry_run_says_what_it_would_do():
    text = shown(
        reports.copies,
        CopyPlanned("all", "web", "b1", "/c", MIB),
        CopySkipped("all", "web", "b0", "/c", "it is there already"),
    )
    assert "1 backup would be copied to /c, 1 skipped" in text
    assert "not copied: web: b0: it is there already" in text


def test_nothing_to_copy_is_said():
    assert shown(reports.copies) == "0 backups copied\n"


def test_a_backup_without_copies_says_nothing_of_them():
    assert "cop" not in shown(reports.backup)
    assert "1 backup copied to /c" in shown(reports.backup, done())
