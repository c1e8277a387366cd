"""Looking around on a real host: libvirt's domains, their agents, a disk for backups."""

import subprocess

from lab.disks import DiskSpec
from lab.domains import define, running
from mounts import mounted
from virtbackup_async.api.setup import survey_host
from virtbackup_async.engine.setup.proposal import is_safe, rank
from virtbackup_async.engine.setup.target import judge, look_at_target
from virtbackup_async.events import AgentState, Level


async def test_domains_and_their_agents_are_found(daemon):
    mute = define(daemon, "mute", [DiskSpec("vda", "raw", fs=None)], agent=False)
    deaf = define(daemon, "deaf", [DiskSpec("vda", "raw", fs=None)])
    try:
        mute.start()
        with running(daemon, "talks", [DiskSpec("vda"), DiskSpec("vdb", backing=1)]) as talks:
            site = await survey_host((daemon.uri,))
            assert talks.state() == "running"
            images = talks.images()
    finally:
        mute.undefine()
        deaf.undefine()
    found = {domain.domain: domain for domain in site.domains}
    assert {name: (one.running, one.agent) for name, one in found.items()} == {
        "deaf": (False, AgentState.UNKNOWN),
        "mute": (True, AgentState.NONE),
        "talks": (True, AgentState.ANSWERS),
    }
    assert found["talks"].disks == ("vda", "vdb")
    assert found["talks"].used_bytes
    assert {path.resolve() for path in images.values()} <= set(site.images["talks"].paths)
    assert any("talks" in file_system.images_of for file_system in site.file_systems)


async def test_a_disk_without_images_is_safe_until_it_is_read_only(daemon, tmp_path):
    domain = define(daemon, "elsewhere", [DiskSpec("vda", "raw", fs=None)], agent=False)
    try:
        with mounted("ext4", tmp_path, 1300) as place:
            site = await survey_host((daemon.uri,))
            seen = await look_at_target(site, place / "virtbackup")
            findings = judge(site, seen)
            safe = [found.path for found in rank(site) if is_safe(found)]
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
            again = await survey_host((daemon.uri,))
            refused = judge(again, await look_at_target(again, place / "virtbackup"))
    finally:
        domain.undefine()
    assert str(place) in safe
    assert [finding.message for finding in findings if "not empty" not in finding.message] == []
    assert str(place) not in [found.path for found in rank(again)]
    assert [(one.level, "read-only" in one.message) for one in refused] == [(Level.PROBLEM, True)]
