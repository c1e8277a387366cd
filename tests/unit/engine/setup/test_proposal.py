"""What is proposed for a host, by what there is on it."""

from pathlib import Path

import pytest

from fakes.new_hosts import ARCHIVE, BACKUP, GIB, NAS, OTHER_PARTITION, ROOT, domain, site
from virtbackup_async.config.loading import examine_text
from virtbackup_async.config.new_file import write_config
from virtbackup_async.engine.setup.proposal import (
    Choices,
    directory_on,
    is_safe,
    names,
    propose,
    rank,
)
from virtbackup_async.errors import NotFoundError
from virtbackup_async.events import AgentState

TARGET = Path("/mnt/backup/virtbackup")
PATH = Path("/etc/virt-backup/config.yml")
NONE, SILENT, UNKNOWN = AgentState.NONE, AgentState.SILENT, AgentState.UNKNOWN


def group_for(found, **choices):
    text = write_config(propose(found, Choices(**choices), TARGET), PATH)
    config, problems = examine_text(text.encode(), PATH)
    assert (problems.errors, problems.warnings) == ((), ())
    return config.groups["guests"]


def quiesced(group, name):
    told = [entry.quiesce for entry in group.hosts if entry.pattern.matches(name)]
    return next((one for one in told if one is not None), group.quiesce)


def points(found):
    return [file_system.path for file_system in rank(found)]


def test_a_disk_without_images_comes_first_then_room():
    found = site(domain("web"), free_bytes={NAS: 50 * GIB})
    assert points(found) == ["/mnt/backup", "/mnt/nas", "/data", "/"]
    assert [is_safe(one) for one in rank(found)] == [True, True, False, False]


def test_what_has_no_room_for_the_images_comes_after_what_has():
    found = site(domain("web"), mounts=(BACKUP, NAS), free_bytes={BACKUP: 9 * GIB, NAS: 11 * GIB})
    assert points(found) == ["/mnt/nas", "/mnt/backup"]


def test_what_cannot_be_written_to_is_never_proposed():
    assert points(site(domain("web"), mounts=(ARCHIVE,))) == []


def test_without_any_image_the_root_file_system_still_comes_last():
    assert points(site(mounts=(ROOT, OTHER_PARTITION))) == ["/data", "/"]


@pytest.mark.parametrize(
    ("point", "directory"),
    [
        ("/", "/var/backups/virtbackup"),
        ("/var", "/var/backups/virtbackup"),
        ("/mnt/my disk", "/mnt/my disk/virtbackup"),
    ],
)
def test_the_directory_is_below_the_mount_point(point, directory):
    assert directory_on(Path(point)) == Path(directory)


def test_every_domain_is_backed_up_later_ones_too():
    group = group_for(site(domain("web"), domain("db")))
    assert [entry.pattern.text for entry in group.hosts] == ["r:.*"]
    assert (group.autostart, group.packager.type, group.quiesce) == (True, "repository", True)
    assert (group.retention.daily, group.retention.weekly, group.retention.monthly) == (7, 4, 6)


def test_a_host_without_domains_gets_a_file_for_those_to_come():
    group = group_for(site())
    assert group.includes("the first")
    assert not group.quiesce


@pytest.mark.parametrize("odd", ["yes", "1e3", "!x", "r:x", "g:guests", "a b", "x$", "客"])
def test_who_has_no_agent_is_not_frozen_whatever_the_name(odd):
    group = group_for(site(domain("web"), domain(odd, NONE), domain("off", UNKNOWN)))
    assert [quiesced(group, name) for name in ("web", odd, "off", "new")] == [
        True, False, True, True,
    ]  # fmt: skip


def test_without_any_agent_nothing_is_frozen_and_nobody_is_an_exception():
    group = group_for(site(domain("web", NONE), domain("db", SILENT)))
    assert not group.quiesce
    assert len(group.hosts) == 1


def test_the_admin_may_want_it_otherwise():
    found = site(domain("web"), domain("db", SILENT))
    assert not group_for(found, quiesce=False).quiesce
    group = group_for(site(domain("web", SILENT)), quiesce=True)
    assert (group.quiesce, quiesced(group, "web")) == (True, False)
    group = group_for(found, packager="zstd", keep=(1, 2, 3))
    assert group.packager.type == "zstd"
    assert (group.retention.daily, group.retention.weekly, group.retention.monthly) == (1, 2, 3)


def test_a_domain_without_a_disk_to_back_up_is_taken_out():
    group = group_for(site(domain("web"), domain("diskless", disks=())))
    assert group.includes("web")
    assert not group.includes("diskless")


def test_a_domain_that_could_not_be_looked_at_is_not_given_up():
    group = group_for(site(domain("web"), domain("odd", UNKNOWN, disks=(), error="damaged")))
    assert group.includes("odd")


def test_named_domains_alone_are_backed_up():
    found = site(domain("web"), domain("db", NONE), domain("other"))
    group = group_for(found, domains=("db", "web"))
    assert [name for name in ("web", "db", "other", "new") if group.includes(name)] == ["web", "db"]
    assert [quiesced(group, name) for name in ("web", "db")] == [True, False]


def test_a_name_that_libvirt_does_not_know_is_told_with_the_nearest():
    with pytest.raises(NotFoundError, match=r"has no domain 'wbe', did you mean 'web'\?"):
        propose(site(domain("web")), Choices(domains=("wbe",)), TARGET)


def test_many_names_are_cut():
    assert names(["a", "b"]) == "a, b"
    assert names(list("abcdefg")) == "a, b, c, d, e and 2 more"
