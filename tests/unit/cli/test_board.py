"""The state behind the live view, whatever the order of the events."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.recorded_run import GIB, disk_done, done, failed, progress, started
from virtbackup_async.cli.render.board import Board
from virtbackup_async.cli.render.work import Speed
from virtbackup_async.events import (
    BackupsExpected,
    BackupStarted,
    CopyDone,
    CopyFailed,
    CopySkipped,
    CopyStarted,
    DiskExported,
    DiskProgress,
    DisksHeld,
    ExpectedBackup,
    ExpectedDisk,
    HookEnded,
    HookStarted,
    Phase,
    PhaseChanged,
    RepositoryChecked,
    RepositoryProgress,
    RestoreStarted,
    RunStarted,
    VerifyDone,
    VerifyStarted,
)

NAMES = ("web", "db")
DISKS = ("vda", "vdb")


def expected(name="web", *gib, group="main", backup=None):
    disks = zip(DISKS, gib, strict=False)
    sizes = tuple(ExpectedDisk(disk, int(size * GIB)) for disk, size in disks)
    return ExpectedBackup(group, name, "/b", sizes, backup=backup)


def board_of(*events):
    board = Board()
    for second, event in enumerate(events):
        board.apply(event, second)
    return board


def test_speed_is_the_mean_of_the_last_seconds_and_falls_when_nothing_comes():
    speed = Speed()
    assert speed.bytes_per_s(0) is None
    for second in range(21):
        speed.add(second * (200 if second > 10 else 100), second)
    assert speed.bytes_per_s(20) == 200
    assert speed.bytes_per_s(26) == 100  # six seconds of 200, then six of none
    assert speed.bytes_per_s(10_000) < 1


names, disks = st.sampled_from(NAMES), st.sampled_from(DISKS)
sizes = st.integers(0, 100)
any_event = st.one_of(
    st.just(RunStarted("backup", NAMES)),
    st.builds(lambda name, a, b: BackupsExpected((expected(name, a, b),)), names, sizes, sizes),
    st.builds(lambda name: started(name, *DISKS), names),
    st.builds(PhaseChanged, names, st.sampled_from(Phase), st.none() | disks, st.just("main")),
    st.builds(progress, names, disks, sizes, sizes),
    st.builds(disk_done, names, disks),
    st.builds(done, names),
    st.builds(failed, names, cancelled=st.booleans()),
    st.builds(lambda at, of: RepositoryProgress("/b", at, of), sizes, sizes),
    st.just(RepositoryChecked("/b", 1, 1, 1, 0, 1.0)),
    st.builds(lambda name: VerifyStarted("main", name, "b", DISKS), names),
    st.builds(lambda name: VerifyDone("main", name, "b", "/d", True, 1, 1.0), names),
)


@given(st.lists(any_event, max_size=60))
def test_no_progress_runs_backwards_whatever_is_said_in_whatever_order(told):
    board = Board()
    wholes, rows = [board.whole()], {}
    for second, event in enumerate(told):
        board.apply(event, second)
        wholes.append(board.whole())
        for key, work in board.rows.items():
            assert 0 <= rows.get(key, 0) <= work.share <= 1
            rows[key] = work.share
        assert board.ended <= board.works
    for before, after in pairwise(wholes):
        assert before.share <= after.share <= 1
        assert before.done_bytes <= after.done_bytes <= after.total_bytes


def test_the_whole_is_weighed_by_the_sizes_that_were_expected():
    board = board_of(
        RunStarted("backup", ("web", "db")),
        BackupsExpected((expected("web", 8, 2), expected("db", 90))),
        started("web", "vda", "vdb"),
        progress("web", "vda", 4, 8),
    )
    (web,) = board.rows.values()
    assert web.share == pytest.approx(0.4)
    assert board.whole().share == pytest.approx(0.04)
    assert board.whole().total_bytes == 100 * GIB
    board.apply(done("web"), 5)
    assert board.whole().share == pytest.approx(0.1)


def test_a_disk_that_begins_later_takes_nothing_back():
    board = board_of(
        started("app", "vda", "vdb"), progress("app", "vda", 3, 4), progress("app", "vdb", 0, 40)
    )
    (app,) = board.rows.values()
    assert app.share == pytest.approx(3 / 8), "of the second disk as much was expected"


def test_an_attempt_that_begins_anew_takes_nothing_back():
    board = board_of(started(), progress("web", "vda", 3, 4), started(), progress("web", "vda", 1))
    (web,) = board.rows.values()
    assert web.share == 0.75
    assert board.moved_bytes == 4 * GIB, "it was read, all the same"


def test_what_nobody_expected_counts_as_much_as_the_others():
    board = board_of(
        RunStarted("backup", ("web", "db", "new")),
        BackupsExpected((expected("web", 4), expected("db", 8), expected("new"))),
    )
    assert board.whole().total_bytes == 18 * GIB
    board.apply(done("web"), 3)
    assert board.whole().share == pytest.approx(4 / 18)


def test_without_any_size_ends_are_counted():
    board = board_of(RunStarted("backup", ("web", "db")), done("web"))
    assert board.whole().share == 0.5


def test_all_is_done_only_when_all_has_ended():
    board = board_of(started(), progress("web", "vda", 4))
    assert board.whole().share == 0.99
    board.apply(done(), 3)
    assert board.whole().share == 1


def test_a_failure_is_over_and_weighs_what_it_has_read():
    board = board_of(
        RunStarted("backup", ("web", "db")),
        BackupsExpected((expected("web", 10), expected("db", 90))),
        failed("db"),
    )
    assert [one.name for one in board.failures] == ["db"]
    assert board.whole().total_bytes == 10 * GIB
    assert (board.ended, board.works) == (1, 2)


def test_one_domain_in_two_groups_is_two_works():
    board = board_of(
        RunStarted("backup", ("web",)),
        BackupsExpected((expected("web", 4), expected("web", 4, group="weekly"))),
        BackupStarted("main", "web", "b", ("vda",)),
    )
    assert board.works == 2
    board.apply(done("web"), 3)
    assert board.whole().share == 0.5
    board.apply(BackupStarted("weekly", "web", "c", ("vda",)), 4)
    board.apply(progress("web", "vda", 2), 5)
    assert board.whole().share == 0.75


def test_what_comes_after_the_end_changes_nothing():
    board = board_of(started(), done(), progress("web", "vda", 1), done(), failed("web"))
    assert board.rows.keys() <= {(None, "web", None)}
    assert (board.done, len(board.failures)) == (1, 0)


def test_verify_knows_each_backup_by_itself():
    told = tuple(expected("web", 4, backup=name) for name in "abc")
    board = board_of(
        RunStarted("verify", ("web",)),
        BackupsExpected(told),
        VerifyStarted("main", "web", "a", ("vda",)),
        DiskProgress("web", "vda", 2 * GIB, 4 * GIB),
    )
    assert board.works == 3
    assert board.whole().share == pytest.approx(2 / 12)
    board.apply(VerifyDone("main", "web", "a", "/d", digests=True, data_bytes=1, duration_s=1), 5)
    assert (board.done, board.works) == (1, 3)


def test_backups_in_a_repository_are_read_with_its_packs():
    told = tuple(expected(name, backup="a") for name in NAMES)
    board = board_of(
        RunStarted("verify", NAMES),
        BackupsExpected(told),
        *(VerifyStarted("main", name, "a", DISKS) for name in NAMES),
        RepositoryProgress("/b", 3, 4),
    )
    assert board.whole().share == 0.75
    assert board.works == 2
    assert [work.name for work in board.rows.values() if work.is_moving] == ["/b"]


def waits(board):
    return {why: [work.name for work in works] for why, works in board.waits()}


def test_who_waits_and_for_what():
    locked = "process 4711 (backup) works on this domain"
    board = board_of(
        RunStarted("backup", ("web", "db", "app", "mail")),
        HookStarted("before", "main"),
    )
    assert board.hook == "hook before of group main"
    for event in (
        HookEnded("before", "main", 1.0),
        PhaseChanged("mail", Phase.WAITING, group="main"),
        PhaseChanged("web", Phase.PREPARING, group="main"),
        PhaseChanged("web", Phase.WAITING, group="main", reason=locked),
        PhaseChanged("db", Phase.PREPARING, group="main"),
        started("app"),
        PhaseChanged("app", Phase.FREEZING),
    ):
        board.apply(event, 3)
    assert board.hook is None
    assert waits(board) == {locked: ["web"], "preparing": ["db"], "next": ["mail"]}
    board.apply(PhaseChanged("web", Phase.PREPARING, group="main"), 4)
    assert waits(board) == {"preparing": ["web", "db"], "next": ["mail"]}


def test_what_is_known_of_the_freeze_is_kept():
    board = board_of(started(), DisksHeld("web", True, 307))
    (web,) = board.rows.values()
    assert web.held.frozen_ms == 307


def test_an_export_ends():
    begun = RestoreStarted("web", "b", "-", ("vda",))
    board = board_of(
        begun, DiskExported("web", "b", "vda", "-", "raw", verified=True, data_bytes=1)
    )
    assert (board.done, board.rows) == (1, {})


def test_cancelled_backups_are_no_failures():
    board = board_of(started(), failed("web", cancelled=True))
    assert (board.cancelled, board.failures, board.ended) == (1, [], 1)


def copy_started(backup, target="/c"):
    return CopyStarted("main", "web", backup, target, ("vda",))


def copy_done(backup, target="/c"):
    return CopyDone("main", "web", backup, target, "", GIB, GIB // 2, GIB // 2, GIB // 4, 9.0)


def copy_failed(backup, target="/c"):
    return CopyFailed("main", "web", backup, target, "it is damaged", 13)


def test_copies_of_one_domain_are_works_of_their_own():
    board = board_of(
        RunStarted("copy", ("web",)),
        BackupsExpected((expected("web", 1, backup="b1"), expected("web", 1, backup="b2"))),
        CopySkipped("main", "web", "b0", "/c", "it is there already"),
        copy_started("b1"),
        progress("web", "vda", 0.5, 1),
    )
    assert (board.works, board.ended, len(board.waiting)) == (2, 0, 1)
    assert board.whole().share == pytest.approx(0.25)
    for event in (copy_done("b1"), copy_started("b2"), copy_failed("b2")):
        board.apply(event, 9)
    assert (board.done, board.works, board.rows) == (1, 2, {})
    assert [failure.error for failure in board.failures] == ["it is damaged"]


def test_copies_after_a_backup_are_shown_for_each_target():
    board = board_of(
        RunStarted("backup", ("web",)),
        started("web"),
        done("web"),
        copy_started("b1", "/c"),
        copy_done("b1", "/c"),
        copy_started("b1", "/d"),
        progress("web", "vda", 0.5, 1),
    )
    (work,) = board.rows.values()
    assert (work.target, work.done_bytes) == ("/d", GIB // 2)
    assert board.done == 2
