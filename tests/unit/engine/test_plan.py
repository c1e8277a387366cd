"""The plan: which domains, which disks, frozen or not, and what is said of the rest."""

import pytest
import yaml

from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.plan import PlannedMissing, find_group, plan_backups
from virtbackup_async.errors import ConfigError, NotFoundError
from virtbackup_async.model.storage_location import StorageLocation

DOMAINS = ("web", "db", "prod-1", "prod-2", "test-1")


@pytest.fixture
def plan(tmp_path):
    def plan(groups, *names, domains=DOMAINS, default=None, **top):
        path = tmp_path / "config.yml"
        path.write_text(
            yaml.safe_dump({"default": default or {"target": "/t"}, "groups": groups} | top)
        )
        return plan_backups(load_config(path), names, domains)

    return plan


def planned(plan):
    return [(backup.group.name, backup.domain) for backup in plan.backups]


def test_named_groups_are_planned_in_their_order(plan):
    groups = {"a": {"hosts": ["web"]}, "b": {"hosts": ["db"], "autostart": False}}
    assert planned(plan(groups, "b", "a", "b")) == [("b", "db"), ("a", "web")]


def test_autostart_groups_are_planned_when_none_is_named(plan):
    found = plan({"a": {"hosts": ["web"], "autostart": True}, "b": {"autostart": False}})
    assert planned(found) == [("a", "web")]
    assert found.warnings == ()


def test_missing_autostart_is_warned_of_where_virt_backup_wrote_the_file(plan):
    groups = {"a": {"hosts": ["web"], "autostart": True}, "b": {}, "c": {}}
    assert plan(groups).warnings == ()
    assert plan(groups, username="backup").warnings == ()
    (warning,) = plan(groups, username=None).warnings
    assert plan({**groups, "a": {**groups["a"], "target_dir": "/t"}}).warnings == (warning,)
    assert warning.startswith("passed over without an autostart key: b, c; virt-backup 0.5.6 would")
    assert plan({"a": {"hosts": ["web"]}}, "a").warnings == ()


def test_nothing_to_start_is_warned_of(plan):
    found = plan({"a": {"hosts": ["web"], "autostart": False}})
    assert not found.backups
    assert found.warnings == ("no group has autostart: true, and none was named",)


def test_unknown_group_is_told_with_the_nearest(plan):
    with pytest.raises(NotFoundError, match=r"is called 'prd' in .*, did you mean 'prod'\?"):
        plan({"prod": {}, "test": {}}, "prd")


def test_a_domain_where_a_group_is_wanted_is_told_its_group(tmp_path):
    path = tmp_path / "config.yml"
    path.write_text("groups: {production: {target: /t, hosts: [fc-db, 'r:.*']}, old: {}}")
    with pytest.raises(NotFoundError, match="no group 'fc-db'") as caught:
        find_group(load_config(path), "fc-db")
    assert caught.value.hint == "fc-db is a domain of group production: name the group."
    with pytest.raises(NotFoundError, match="no group 'fc-dx'") as caught:
        find_group(load_config(path), "fc-dx")
    assert caught.value.hint is None, "a pattern that takes everything knows no domain"


def test_group_without_a_target_cannot_be_planned(plan):
    groups = {"a": {"hosts": ["web"]}, "b": {"target": "/t", "hosts": ["web"]}}
    with pytest.raises(ConfigError, match="group a has no target"):
        plan(groups, "a", default={"hourly": 1})
    assert planned(plan(groups, "b", default={"hourly": 1})) == [("b", "web")]


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (["r:^prod"], ["prod-1", "prod-2"]),
        (["r:rod"], []),
        (["r:.*rod"], ["prod-1", "prod-2"]),
        (["r:"], list(DOMAINS)),
        (["!r:^prod", "r:"], ["web", "db", "test-1"]),
        (["r:", "!web", "web"], ["db", "prod-1", "prod-2", "test-1"]),
        (["!web"], []),
        (["g:other"], ["db", "prod-1"]),
        (["r:", "!g:other"], ["web", "prod-2", "test-1"]),
        ([], []),
    ],
)
def test_hosts_mean_these_domains(plan, hosts, expected):
    groups = {"a": {"hosts": hosts}, "other": {"hosts": ["r:^prod", "db", "!prod-2"]}}
    assert [backup.domain for backup in plan(groups, "a").backups] == expected


def test_named_domain_that_does_not_exist_is_missing(plan):
    found = plan({"a": {"hosts": ["web", "gone", "!lost", "off", "!off", "r:^nothing"]}}, "a")
    assert found.missing == (PlannedMissing("a", "gone"),)
    assert found.warnings == ()


def test_group_that_means_a_group_that_is_not_there_fails_alone(plan):
    groups = {"a": {"hosts": ["web", "g:gone", "!g:lost"]}, "b": {"hosts": ["db"]}}
    found = plan(groups, "a", "b")
    assert found.missing == (PlannedMissing("a", "g:gone", "there is no such group"),)
    assert planned(found) == [("a", "web"), ("b", "db")]


def test_group_that_matches_nothing_is_warned_of(plan):
    found = plan({"a": {"hosts": ["r:^nothing"]}, "b": {}}, "a", "b")
    assert found.warnings == ("group a matches no domain", "group b matches no domain")


def test_disks_of_all_matches_are_united(plan):
    some = {"host": "web", "disks": ["vda", "vdb"]}
    more = {"host": "r:^w", "disks": ["vdb", "vdc"]}
    (backup,) = plan({"a": {"hosts": [some, more]}}, "a").backups
    assert backup.disks == ("vda", "vdb", "vdc")
    (backup,) = plan({"a": {"hosts": [some, "r:^w"]}}, "a").backups
    assert backup.disks == ()


@pytest.mark.parametrize("group_says", [True, False])
@pytest.mark.parametrize("host_says", [True, False, None])
def test_quiesce_of_a_host_wins_over_its_groups(plan, group_says, host_says):
    host = {"host": "web"} | ({} if host_says is None else {"quiesce": host_says})
    (backup,) = plan({"a": {"quiesce": group_says, "hosts": [host]}}, "a").backups
    assert backup.quiesce is (group_says if host_says is None else host_says)


def test_same_work_of_two_groups_is_planned_once(plan):
    groups = {
        "a": {"hosts": [{"host": "web", "disks": ["vda"]}]},
        "b": {"target": "/t/", "hosts": [{"host": "web", "disks": ["vdb"]}], "quiesce": True},
        "c": {"hosts": ["web"], "target": "/elsewhere"},
        "d": {"hosts": ["web"], "packager": "zstd"},
        "e": {"hosts": ["web"], "packager_opts": {"compression": "gz"}},
    }
    found = plan(groups, *groups)
    assert planned(found) == [("a", "web"), ("c", "web"), ("d", "web"), ("e", "web")]
    merged = found.backups[0]
    assert merged.also_in == ("b",)
    assert merged.disks == ("vda", "vdb")
    assert merged.quiesce
    assert merged.group.target == StorageLocation.of("/t")


def test_all_disks_win_over_some_among_groups(plan):
    groups = {"a": {"hosts": [{"host": "web", "disks": ["vda"]}]}, "b": {"hosts": ["web"]}}
    (backup,) = plan(groups, "a", "b").backups
    assert backup.disks == ()


GROUPS = {
    "nightly": {"hosts": ["r:^prod", "db"], "autostart": True},
    "weekly": {"hosts": ["db", "web", "gone"], "target": "/u"},
    "copy": {"hosts": ["prod-1", {"host": "web", "disks": ["vda"]}], "target": "/u"},
    "web": {"hosts": ["test-1"]},
}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["prod-2"], [("nightly", "prod-2")]),
        (["nightly/db"], [("nightly", "db")]),
        (["weekly/db", "prod-2", "weekly/db"], [("weekly", "db"), ("nightly", "prod-2")]),
        (["nightly/prod-1", "nightly"], [("nightly", d) for d in ("db", "prod-1", "prod-2")]),
        (["weekly/web", "copy/web"], [("weekly", "web")]),  # the same work
    ],
)
def test_single_domains_are_planned_by_the_settings_of_their_group(plan, names, expected):
    assert planned(plan(GROUPS, *names)) == expected


def test_a_domain_of_groups_that_do_the_same_work_is_planned_once(plan):
    groups = {"a": {"hosts": ["web"]}, "b": {"hosts": ["r:"], "quiesce": True}}
    (backup,) = plan(groups, "web").backups
    assert (backup.group.name, backup.also_in, backup.quiesce) == ("a", ("b",), True)


def test_a_domain_in_several_targets_needs_its_group(plan):
    with pytest.raises(ConfigError, match="'db' is in several groups") as caught:
        plan(GROUPS, "db")
    assert caught.value.hint == "Write one of 'nightly/db', 'weekly/db'."


@pytest.mark.parametrize("names", [("nightly", "prod-1"), ("prod-2", "nightly")])
def test_a_domain_next_to_its_own_group_may_mean_either(plan, names):
    groups = {"nightly": GROUPS["nightly"]}
    with pytest.raises(ConfigError, match=r"prod-\d is a domain of nightly") as caught:
        plan(groups, *names)
    assert caught.value.hint.startswith("Write nightly/prod-")
    assert planned(plan(groups, "nightly", "nightly/prod-1")) == [
        ("nightly", domain) for domain in ("db", "prod-1", "prod-2")
    ]


def test_a_group_without_a_target_is_no_choice(plan):
    groups = {"a": {"hosts": ["web"]}, "b": {"target": "/t", "hosts": ["web"]}}
    assert planned(plan(groups, "web", default={"hourly": 1})) == [("b", "web")]
    with pytest.raises(ConfigError, match="group a has no target"):
        plan(groups, "a/web", default={"hourly": 1})


def test_a_group_goes_before_a_domain_of_its_name_and_says_so(plan):
    (warning,) = plan(GROUPS, "web").warnings
    assert warning == (
        "web is taken for the group of that name; the domain web is copy/web and weekly/web"
    )
    same = {"web": {"hosts": ["web"]}, "all": {"hosts": ["r:"]}}
    assert plan(same, "web").warnings == ()


def test_a_named_domain_that_libvirt_does_not_know_is_missing(plan):
    found = plan(GROUPS, "gone")
    assert found.backups == ()
    assert found.missing == (PlannedMissing("weekly", "gone"),)
    assert plan(GROUPS, "weekly/db").missing == ()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("prod-3", ", did you mean 'prod-2'?"),
        ("nightli", "did you mean 'nightly'?"),
        ("copy/test-1", "neither a group nor a domain of a group is called 'copy/test-1' in"),
        ("prod-1@yesterday", "names a backup, not a domain. Name the domain: prod-1."),
        ("stray", "domain stray is in no group of"),
    ],
)
def test_a_word_that_is_neither_group_nor_domain_is_refused(plan, word, said):
    with pytest.raises(NotFoundError) as caught:
        plan(GROUPS, word, domains=(*DOMAINS, "stray"))
    assert said in str(caught.value)


@pytest.mark.parametrize("domain", ["a/b", "web@today", "a b", "g/x", "nightly/db"])
def test_a_domain_may_be_called_what_it_likes(plan, domain):
    groups = {"g": {"hosts": [domain]}}
    assert planned(plan(groups, domain, domains=[domain])) == [("g", domain)]
    assert planned(plan(groups, f"g/{domain}", domains=[domain])) == [("g", domain)]
