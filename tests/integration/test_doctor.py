"""The doctor on real guests: a healthy one, one without an agent, snapshots, an overlay left."""

import pytest
from anyio import to_thread

from lab.disks import DiskSpec
from lab.domains import define, running
from recording import Recorder, configure
from virtbackup_async.engine.doctor.examination import DoctorRequest, run_doctor
from virtbackup_async.engine.runtime import open_runtime
from virtbackup_async.events import Finding, Level
from virtbackup_async.model.tracking import checkpoint_name


@pytest.fixture
def examine(tmp_path):
    async def examine(daemon, hosts, *, freeze=False, **group):
        config = configure(tmp_path, daemon.uri, hosts, **group)
        recorder = Recorder(tmp_path / "frozen")
        async with open_runtime(config, recorder) as runtime:
            await run_doctor(runtime, DoctorRequest(freeze=freeze))
        return recorder.of(Finding)

    return examine


def messages(findings, check):
    return [found.message for found in findings if found.check == check]


async def test_a_guest_that_answers_is_frozen_on_demand(daemon, examine):
    with running(daemon, "healthy", [DiskSpec("vda", backing=1)]) as domain:
        found = await examine(daemon, ["healthy"], quiesce=True, freeze=True)
        frozen = await to_thread.run_sync(domain.agent, "guest-fsfreeze-status")
    assert [one for one in found if one.level is Level.PROBLEM] == []
    assert messages(found, "versions")[0].startswith("libvirt ")
    assert "froze and thawed in" in messages(found, "agent")[0]
    assert frozen == "thawed"
    assert "1 below it" in messages(found, "disk")[0]


async def test_a_guest_that_was_left_frozen_is_a_problem(daemon, examine):
    with running(daemon, "forgotten", [DiskSpec("vda")]) as domain:
        await to_thread.run_sync(daemon.virsh, "domfsfreeze", "forgotten")
        found = await examine(daemon, ["forgotten"], quiesce=True)
        await to_thread.run_sync(daemon.virsh, "domfsthaw", "forgotten")
        healthy = await examine(daemon, ["forgotten"], quiesce=True)
        assert domain.state() == "running"
    (problem,) = [one for one in found if one.check == "agent"]
    assert problem.level is Level.PROBLEM
    assert "are frozen" in problem.message
    assert problem.advice == "Thaw it: virsh domfsthaw forgotten"
    assert messages(healthy, "agent") == ["the guest agent answers"]


async def test_a_running_domain_without_an_agent(daemon, examine):
    domain = define(daemon, "silent", [DiskSpec("vda", "raw", fs=None)], agent=False)
    domain.start()
    try:
        found = await examine(daemon, ["silent", "nobody"], quiesce=True)
    finally:
        domain.undefine()
    assert "no channel for the guest agent" in messages(found, "agent")[0]
    (problem,) = [one for one in found if one.level is Level.PROBLEM]
    assert problem.check == "pattern"


async def test_checkpoints_and_overlays_are_found(daemon, examine):
    domain = define(daemon, "littered", [DiskSpec("vda", fs=None)], agent=False)
    domain.start()
    overlay = domain.images()["vda"].with_name("gone.qcow2.vbk-00000000")
    overlay.touch()
    try:
        daemon.virsh("checkpoint-create-as", "littered", "first")
        daemon.virsh("checkpoint-create-as", "littered", checkpoint_name(bytes(16)))
        found = await examine(daemon, ["littered"])
    finally:
        overlay.unlink()
        domain.undefine()
    left = messages(found, "leftover")
    (checkpoints,) = [message for message in left if "checkpoints" in message]
    assert checkpoints.endswith(": first")
    assert [one.subject for one in found if one.level is Level.PROBLEM] == [str(overlay)]
