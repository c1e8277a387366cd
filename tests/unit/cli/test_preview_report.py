"""``backup --dry-run`` in text, and its options as typed."""

from io import StringIO

import pytest

from fakes.recorded_run import HOSTILE, summary
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.render.console import text_console
from virtbackup_async.events import BackupFailed, DiskPlanned, TargetPlanned

MIB = 1 << 20
BASE = "20260701-030000_3_web"
CHANGES = DiskPlanned("main", "web", "vda", "pull", True, BASE, None, 20 * MIB, 3 * MIB)
FULL = DiskPlanned("main", "web", "vdb", "pull", False, None, "a raw image", 10 * MIB, 4 * MIB)
OFFLINE = DiskPlanned("main", HOSTILE, "vda", "pull", True, BASE, None, None, None)


def shown(*events):
    report, out = reports.preview(), StringIO()
    for event in events:
        report.add(event)
    report.print(text_console(out, width=120), summary())
    return out.getvalue().splitlines()


def test_each_disk_says_how_and_how_much():
    heads, changes, full = shown(CHANGES, FULL)
    assert heads.split() == ["group", "domain", "dev", "method", "disk", "read", "how"]
    assert changes.split() == (f"main web vda pull 20.0 MiB 3.0 MiB changes since {BASE}".split())
    assert full.split() == [
        "main",
        "web",
        "vdb",
        "pull",
        "10.0",
        "MiB",
        "4.0",
        "MiB",
        "in",
        "full:",
        "a",
        "raw",
        "image",
    ]


def test_what_is_not_known_is_said_and_no_name_moves_the_cursor():
    line = shown(OFFLINE)[1]
    assert "unknown  unknown" in line
    assert line.isprintable()


@pytest.mark.parametrize(
    ("fits", "said"), [(True, "fits"), (False, "DOES NOT FIT"), (None, "may not fit")]
)
def test_each_target_says_whether_it_fits(fits, said):
    assert shown(TargetPlanned("/t", 2, 5 * MIB, MIB, fits)) == [
        f"/t: 2 backups, up to 5.0 MiB to read, 1.0 MiB free: {said}"
    ]
    (line,) = shown(TargetPlanned("s3://b", 2, 5, None, None))
    assert line == "s3://b: 2 backups, up to 5 B to read; how much is free is not known"


def test_a_domain_that_could_not_be_backed_up_is_told():
    failed = BackupFailed("main", "web", "web: no image", 21, reason="no image")
    assert shown(failed) == ["web: would fail: no image"]
