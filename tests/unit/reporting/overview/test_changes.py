"""What has changed in the last days, and what is only known since then."""

from datetime import UTC

from fakes.overview_facts import DAY, HOUR, NIGHT, backup, domain_run, facts, guest, run, target
from virtbackup_async.reporting.overview.build import build_overview


def changes(*guests, history=()):
    found = build_overview(facts(*guests, targets=[target(history=history)]), UTC).changes
    return [(round((NIGHT - change.at) / DAY), change.text) for change in found]


OLD = guest("old")


def test_nothing_changes_on_most_days():
    assert changes(OLD, history=[run(1), run(0)]) == []


def test_a_guest_is_new_if_older_ones_are_known():
    new = guest("web", [backup(night, "web") for night in (2, 1, 0)])
    assert changes(OLD, new) == [(2, "web: its first backup that is known")]
    assert changes(new, guest("db", [backup(0, "db")])) == []
    assert changes(OLD, guest("web", [])) == []
    broken = guest("web", [backup(0, "web")], broken=[("x", NIGHT - 9 * DAY, "cut off")])
    assert changes(OLD, broken) == []


def test_a_guest_of_which_clean_has_removed_the_old_backups_is_not_new():
    kept = guest("web", [backup(0, "web")])
    history = [run(20, [domain_run("web", 20)]), run(0, [domain_run("web")])]
    assert changes(OLD, kept, history=history) == []


def test_a_guest_that_is_gone_had_its_last_backup():
    gone = guest("web", [backup(9), backup(3)], is_known=False)
    text = "web: its last backup; libvirt does not know the domain any more"
    assert changes(OLD, gone) == [(3, text)]
    assert changes(OLD, guest("web", [backup(9)], is_known=False)) == []
    assert changes(OLD, guest("web", [backup(9), backup(3)], is_known=None)) == []


def test_disks_that_come_and_go():
    disks = {4: ("vda",), 3: ("vda", "vdb"), 2: ("vda", "vdb"), 1: ("vda", "vdc"), 0: ()}
    found = [backup(night, disks=held) for night, held in disks.items()]
    assert changes(guest("web", [backup(20, disks=("vda",)), *found])) == [
        (1, "web: vdc is new"), (1, "web: vdb is gone"), (3, "web: vdb is new"),
    ]  # fmt: skip


def test_the_backup_before_these_days_is_compared_and_no_older_one():
    found = [backup(night, disks=(dev,)) for night, dev in ((30, "x"), (20, "vda"), (0, "vdb"))]
    assert changes(guest("web", found)) == [(0, "web: vdb is new"), (0, "web: vda is gone")]


def test_the_version_of_the_program_by_host():
    history = [
        run(3, version="1.0"), run(2, version="1.1"), run(1, version="1.1"),
        run(1, version="0.9", host="host2", start=NIGHT - DAY + 60.0),
        run(0, version="1.2", start=NIGHT + 0.0),
    ]  # fmt: skip
    assert changes(OLD, history=history) == [
        (0, "host1: virtbackup 1.2, 1.1 before"), (2, "host1: virtbackup 1.1, 1.0 before"),
    ]  # fmt: skip


def test_a_date_in_the_future_is_no_change():
    assert changes(OLD, guest("web", [backup(date=NIGHT + 9 * HOUR)])) == []
