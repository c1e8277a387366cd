"""A directory that somebody wants backups in: what is said before anything is made."""

import os
import threading
from pathlib import Path

import pytest

from fakes.new_hosts import (
    ARCHIVE,
    BACKUP,
    GIB,
    MEMORY,
    OTHER_PARTITION,
    PLACES,
    ROOT,
    domain,
    site,
)
from virtbackup_async.engine.setup.site import Images, Site
from virtbackup_async.engine.setup.target import TargetSeen, description, judge, look_at_target
from virtbackup_async.events import Level
from virtbackup_async.files.mounts import Place, Space, read_mounts

HOST = site(domain("web"))


def seen(on=BACKUP, path=None, **more):
    path = path or on.point / "virtbackup"
    more = {"space": Space(100 * GIB, 50 * GIB), "place": PLACES[on], "mount": on} | more
    return TargetSeen(path, path, on.point, **more)


def said(facts):
    return [(finding.level, finding.message) for finding in judge(HOST, facts)]


def test_a_disk_of_its_own_is_fine():
    assert said(seen()) == []


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        (seen(path=Path("relative")), "is not a path from the root on"),
        (seen(trouble="does not answer"), "does not answer"),
        (seen(is_directory=False), "/mnt/backup is not a directory"),
        (seen(is_writable=False), "/mnt/backup cannot be written to"),
        (seen(ARCHIVE), "/mnt/old is mounted read-only"),
        (seen(ROOT, Path("/var/lib/libvirt/images")), "holds images of web"),
        (seen(ROOT, Path("/var")), "holds images of web"),
    ],
)
def test_what_makes_backups_impossible_is_a_problem(facts, problem):
    ((level, message), *_) = said(facts)
    assert level is Level.PROBLEM
    assert message.startswith(problem)


@pytest.mark.parametrize(
    ("facts", "warnings"),
    [
        (
            seen(ROOT, Path("/var/lib/libvirt/images/backups")),
            ["is on the file system of the images of web", "is on the root file system"],
        ),
        (seen(OTHER_PARTITION), ["is on the disk of the images of web"]),
        (seen(MEMORY), ["is on tmpfs, in memory"]),
        (seen(space=Space(GIB, GIB)), ["has 1.0 GiB free, and the images hold 10.0 GiB"]),
        (seen(entries=("a", "b", "c", "d")), ["is not empty: a, b, c and 1 more"]),
    ],
)
def test_what_the_admin_should_know_is_a_warning(facts, warnings):
    found = said(facts)
    assert {level for level, _ in found} == {Level.WARNING}
    assert len(found) == len(warnings)
    assert all(message.startswith(text) for (_, message), text in zip(found, warnings, strict=True))


@pytest.fixture
def here():
    return Site("qemu:///system", mounts=read_mounts())


async def test_a_missing_directory_is_looked_at_by_what_is_there(here, tmp_path):
    found = await look_at_target(here, tmp_path / "not" / "yet")
    assert (found.existing, found.trouble, found.entries) == (tmp_path, None, ())
    assert found.is_directory
    assert found.is_writable
    assert found.space is not None
    assert found.mount is not None


async def test_what_is_in_a_directory_is_seen(here, tmp_path):
    (tmp_path / "a").touch()
    assert (await look_at_target(here, tmp_path)).entries == ("a",)


async def test_a_file_is_no_directory(here, tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert not (await look_at_target(here, path)).is_directory


async def test_links_are_followed(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (tmp_path / "link").symlink_to(images)
    found = Site("x", images={"web": Images((images / "web.qcow2",))}, mounts=read_mounts())
    (problem,) = (
        one
        for one in judge(found, await look_at_target(found, tmp_path / "link"))
        if one.level is Level.PROBLEM
    )
    assert problem.message.startswith("holds images of web")


async def test_a_path_that_is_none_is_a_trouble(here, tmp_path):
    found = await look_at_target(here, tmp_path / "nul\0")
    (problem,) = judge(here, found)
    assert (problem.level, problem.message) == (Level.PROBLEM, "cannot be looked at: no path")


async def test_a_link_to_itself_is_a_problem(here, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert judge(here, await look_at_target(here, tmp_path / "loop"))[0].level is Level.PROBLEM


def test_a_file_system_is_described_as_far_as_it_is_known():
    assert description(seen()) == "ext4 on /dev/sdb1, 50.0 GiB free when this was written"
    assert description(seen(mount=None)) == description(seen(space=None)) == ""


async def test_a_file_system_that_does_not_answer_is_a_trouble(here, tmp_path, monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(os.path, "realpath", lambda _: answer.wait())
    try:
        found = await look_at_target(here, tmp_path, timeout_s=0.01)
    finally:
        answer.set()
    assert found.trouble == f"{tmp_path} does not answer"


async def test_a_directory_that_this_user_may_not_write_to(here, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)  # root may anything
    assert not (await look_at_target(here, tmp_path)).is_writable


def test_an_unknown_mount_is_no_reason_to_refuse():
    facts = seen(mount=None, place=Place())
    assert said(facts) == []
