import signal

import pytest
from msgspec.structs import replace

from fakes.recorded_run import done, failed, started
from virtbackup_async.errors import (
    ConfigError,
    ConnectionFailedError,
    RollbackError,
    StorageFullError,
)
from virtbackup_async.events import (
    BackupFailed,
    CopyDone,
    CopyFailed,
    CopyStarted,
    DiskExported,
    HealthChecked,
    RestoreDone,
    RestoreStarted,
    RunStarted,
    VerifyDone,
    VerifyFailed,
    Warned,
)
from virtbackup_async.reporting.outcome import RunOutcome

GOOD = VerifyDone("main", "web", "good", "/t", digests=True, data_bytes=1, duration_s=1.0)
BAD = VerifyFailed("main", "web", "bad", "it is damaged", 13)
UNREAD = VerifyFailed("main", "web", "unread", "it cannot be read now", 21)
LEFT = failed("left", left_pending=True)
UNDO = RollbackError("web: the overlay could not be removed")
CONNECT = ConnectionFailedError("libvirt does not answer", hint="Start libvirtd.")


def tally_of(*events):
    seen = []
    run_outcome = RunOutcome(seen.append)
    for event in events:
        run_outcome.emit(event)
    assert seen == list(events)
    return run_outcome


@pytest.mark.parametrize(
    ("events", "errors", "signum", "code"),
    [
        ([], [], None, 0),
        ([done()], [], None, 0),
        ([done(), failed()], [], None, 3),
        ([replace(done(), missing=("vda",)), done("db")], [], None, 3),
        ([failed()], [], None, 3),
        ([], [ValueError("odd")], None, 1),
        ([], [ConfigError("no groups")], None, 2),
        ([failed()], [CONNECT], None, 10),
        ([failed()], [CONNECT], signal.SIGINT, 130),
        ([failed("a", cancelled=True)], [], signal.SIGTERM, 143),
        ([], [], signal.SIGHUP, 129),
        ([LEFT], [], None, 14),
        ([LEFT], [CONNECT], signal.SIGINT, 14),
        ([], [UNDO], signal.SIGINT, 14),
        ([], [CONNECT, UNDO], None, 14),
        ([GOOD], [], None, 0),
        ([GOOD, UNREAD, BAD], [], None, 13),
        ([GOOD, UNREAD], [], None, 21),
        ([BAD], [CONNECT], None, 10),
    ],
)
def test_the_gravest_decides_the_exit_code(events, errors, signum, code):
    summary = tally_of(*events).summary(errors, signum)
    assert (summary.exit_code, summary.ok) == (code, code == 0)
    assert (summary.error is None) == (code == 0)


def test_summary_names_what_was_done_and_what_failed():
    summary = tally_of(started("web"), started("db"), done("web"), failed("db")).summary([], None)
    assert (summary.done, summary.failed) == (("web",), ("db",))
    assert summary.error == "1 of 2 backups failed"


def test_summary_of_verify_names_the_backups():
    summary = tally_of(GOOD, BAD).summary([], None)
    assert (summary.done, summary.failed) == (("good",), ("bad",))
    assert summary.error == "1 of 2 backups could not be verified"


def test_summary_says_each_different_error_once():
    summary = tally_of().summary([CONNECT, CONNECT, ValueError("odd")], None)
    assert summary.error == (
        "libvirt does not answer. Start libvirtd.; "
        "unexpected ValueError: odd. Run again with -d to see where."
    )


def test_what_is_left_pending_is_named_with_the_way_out():
    summary = tally_of(LEFT).summary([UNDO], None)
    assert "something is left to clean: left." in summary.error
    assert "virtbackup clean -b" in summary.error
    assert "the overlay could not be removed" in summary.error


def test_abandoned_backups_stay_pending():
    seen = []
    run_outcome = RunOutcome(seen.append)
    for event in (started("web"), started("db"), done("db")):
        run_outcome.emit(event)
    run_outcome.abandon()
    assert [type(event) for event in seen[3:]] == [BackupFailed]
    assert (seen[3].domain, seen[3].left_pending, seen[3].cancelled) == ("web", True, True)
    assert run_outcome.summary([], signal.SIGINT).exit_code == 14
    assert not run_outcome.in_flight


def test_a_restore_without_its_end_has_failed():
    begun = RestoreStarted("web", "b", "/t", ("vda",))
    ended = RestoreDone("web", "b", "/t", ("vda.qcow2",), verified=True, data_bytes=1, duration_s=1)
    assert tally_of(begun).summary([CONNECT], None).failed == ("web",)
    assert tally_of(begun, ended).summary([], None).done == ("web",)


def test_an_export_is_done_when_its_image_is():
    started = RestoreStarted("web", "b", "/srv/vda.raw", ("vda",))
    exported = DiskExported("web", "b", "vda", "/srv/vda.raw", "raw", verified=True, data_bytes=1)
    assert tally_of(started).summary([], None).failed == ("web",)
    summary = tally_of(started, exported).summary([], None)
    assert (summary.done, summary.failed) == (("web",), ())


def test_a_backup_without_disks_that_the_one_before_has_is_done_and_told():
    told = tally_of(replace(done(), missing=("vda", "vdb"))).summary([], None)
    assert (told.ok, told.done) == (False, ("web",))
    assert told.error == "disks missing that the backup before has: web (vda, vdb)"


def test_the_summary_counts_what_the_run_came_to():
    clock = iter([10.0, 12.5])
    run_outcome = RunOutcome(lambda _event: None, "id", lambda: next(clock))
    for event in (
        RunStarted("backup", ("web", "db", "mail")),
        started("web"),
        done("web"),
        Warned("odd"),
        failed("db"),
    ):
        run_outcome.emit(event)
    summary = run_outcome.summary([], None)
    assert (summary.run_id, summary.duration_s, summary.warnings) == ("id", 2.5, 1)
    assert summary.not_started == ("mail",)
    sums = (summary.data_bytes, summary.read_bytes, summary.stored_bytes)
    assert sums == (done("web").data_bytes, done("web").read_bytes, done("web").stored_bytes)
    assert summary.error_code == "backups_failed"


@pytest.mark.parametrize(
    ("errors", "signum", "expected"),
    [
        ([], None, None),
        ([StorageFullError("no room", hint="Free some.")], None, "storage_full"),
        ([ValueError("bug")], None, "unexpected"),
        ([], signal.SIGINT, "interrupted"),
    ],
)
def test_the_summary_says_the_kind_of_error_and_what_to_do(errors, signum, expected):
    summary = RunOutcome(lambda _event: None).summary(errors, signum)
    assert summary.error_code == expected
    assert summary.advice == ("Free some." if expected == "storage_full" else None)


@pytest.mark.parametrize(
    ("events", "errors", "expected"),
    [
        ([UNREAD], [], (21, "image")),
        ([BAD, UNREAD], [], (13, "corrupt")),
        ([LEFT], [ValueError("bug")], (14, "rollback")),
        ([], [ConnectionFailedError("no"), UNDO], (14, "rollback")),
        ([HealthChecked("critical", 2, "CRITICAL", 1, None)], [], (2, None)),
        ([HealthChecked("warning", 1, "WARNING", 1, None)], [], (1, None)),
    ],
)
def test_the_kind_of_error_is_that_of_the_exit_code(events, errors, expected):
    run_outcome = RunOutcome(lambda _event: None)
    for event in events:
        run_outcome.emit(event)
    summary = run_outcome.summary(errors, None)
    assert (summary.exit_code, summary.error_code) == expected


def copy_failed(code, backup="b1", **more):
    return CopyFailed("all", "web", backup, "/c", "it is damaged", code, **more)


@pytest.mark.parametrize(("codes", "code"), [((), 0), ((22,), 3), ((11, 22), 3), ((22, 13), 13)])
def test_copies_that_fail_make_the_exit_code(codes, code):
    run_outcome = RunOutcome(lambda _event: None)
    run_outcome.emit(CopyDone("all", "web", "b0", "/c", "", 9, 5, 4, 3, 1.0))
    for failure in codes:
        run_outcome.emit(copy_failed(failure))
    summary = run_outcome.summary([], None)
    assert summary.exit_code == code
    assert summary.done == ("b0",)
    assert summary.failed == ("b1",) * len(codes)
    assert (summary.data_bytes, summary.read_bytes, summary.stored_bytes) == (9, 5, 3)


def test_abandoned_copies_stay_pending():
    seen = []
    run_outcome = RunOutcome(seen.append)
    run_outcome.emit(CopyStarted("all", "web", "b1", "/c", ("vda",)))
    run_outcome.emit(CopyDone("all", "web", "b1", "/c", "", 9, 5, 4, 3, 1.0))
    run_outcome.emit(CopyStarted("all", "web", "b2", "/c", ("vda",)))
    run_outcome.abandon()
    assert (seen[-1].backup, seen[-1].left_pending) == ("b2", True)
    assert run_outcome.summary([], 15).exit_code == 14
