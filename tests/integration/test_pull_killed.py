"""SIGKILL in each phase of a pull, then `clean -b`: nothing of it is left, and the guest runs."""

import json
from contextlib import suppress

import pytest
from command import virtbackup, write_config

from faults.command import run_between
from lab.disks import DiskSpec
from lab.domains import running
from lab.process import LabError
from recording import assert_at_home, leftovers

STEPS = (
    "after fsFreeze",
    "before backupBegin",
    "after backupBegin",
    "after fsThaw",
    "after create package vdb",
    "before abortJob",
    "after abortJob",
    "before sync package vdb",
    "before remove pending",
)
MADE_BY_THEN = {"before remove pending"}


@pytest.fixture(scope="module")
def live(daemon_of_the_run):
    daemon_of_the_run.ensure_started()
    disks = [DiskSpec("vda"), DiskSpec("vdb", "raw", fs=None)]
    with running(daemon_of_the_run, "killed", disks, writer="vda") as domain:
        yield domain


def job_of(domain):
    """The backup job that runs, as libvirt describes it; None if none does."""
    with suppress(LabError):
        return domain.root.virsh("backup-dumpxml", domain.name)
    return None


def sockets(domain):
    return list(domain.root.path.rglob("vbk-*.sock"))


def config_of(domain, directory):
    options = {"method": "pull", "quiesce": True, "packager": "directory"}
    return write_config(directory, domain.root.uri, [domain.name], **options)


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_pull_is_undone(live, step, tmp_path):
    config = config_of(live, tmp_path)
    images = live.images()
    died = []

    def on_point(name, process):
        if name == step and not died:
            died.append(name)
            process.kill()
            process.join()

    ended = run_between(("-c", config, "backup"), on_point)
    assert died, ended.points
    assert list((tmp_path / "target").rglob("*.pending"))

    undone = virtbackup("-c", config, "clean", "-b", "--json")

    assert undone.returncode == 0, undone.stdout
    assert job_of(live) is None
    assert live.agent("guest-fsfreeze-status") == "thawed"
    assert sockets(live) == []
    assert_at_home(live, images)
    assert leftovers(tmp_path) == []
    backups = list((tmp_path / "target").rglob("*.json"))
    assert len(backups) == (step in MADE_BY_THEN)


def test_the_job_of_somebody_else_is_left_alone(live, tmp_path):
    config = config_of(live, tmp_path)
    socket = live.root.path / "other.sock"
    xml = tmp_path / "job.xml"
    xml.write_text(
        f"<domainbackup mode='pull'><server transport='unix' socket='{socket}'/></domainbackup>"
    )
    live.root.virsh("backup-begin", live.name, xml)
    try:
        refused = virtbackup("-c", config, "backup", "--json")
        failed = [json.loads(line) for line in refused.stdout.splitlines()]
        (why,) = [event["error"] for event in failed if event["event"] == "backup_failed"]
        assert "another backup job" in why
        assert job_of(live) is not None
        assert live.agent("guest-fsfreeze-status") == "thawed"
    finally:
        live.root.virsh("domjobabort", live.name)
    assert list((tmp_path / "target").rglob("*.pending")) == []
