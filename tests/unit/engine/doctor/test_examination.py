"""The whole examination, on real files, with a libvirt that is a fake or not there."""

import fcntl
import json
import os
import subprocess
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import yaml
from msgspec.structs import replace

from fakes.hypervisor import DescribedDomain, FakeHypervisor
from virtbackup_async.catalog import pending_file
from virtbackup_async.catalog.scanning import FoundPending
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.doctor import leftovers
from virtbackup_async.engine.doctor.examination import DoctorRequest, run_doctor
from virtbackup_async.engine.locks import hold_domain
from virtbackup_async.engine.runtime import Runtime, open_lazy_hypervisor
from virtbackup_async.errors import ConnectionFailedError, NotFoundError, QuiesceError
from virtbackup_async.events import Level
from virtbackup_async.host.domain_locks import lock_directory
from virtbackup_async.host.local import LocalHost
from virtbackup_async.model.backup import Packager, Pending, PendingDisk
from virtbackup_async.model.target_file import TargetFile

NAME = "20260701-030000_1_fake"
DEFINITION = {
    "name": NAME,
    "domain_id": 1,
    "domain_name": "fake",
    "domain_xml": "<domain/>",
    "disks": {"vda": f"{NAME}_vda.raw"},
    "version": "0.5.6",
    "date": 1782874800,
    "packager": {"type": "directory", "opts": {}},
}


class Domain(DescribedDomain):
    """A domain with an agent that may be silent, and a snapshot of somebody else's."""

    agent_answers = True
    nvram = None
    image_format = "raw"
    checkpoints = ()

    async def checkpoint_names(self):
        return self.checkpoints

    async def info(self):
        info = await super().info()
        info = replace(info, xml=info.xml.replace("type='raw'", f"type='{self.image_format}'"))
        if self.nvram is None:
            return info
        flash = f"<domain><os><nvram>{self.nvram}</nvram></os>"
        return replace(info, xml=info.xml.replace("<domain>", flash))

    async def prepare_quiesce(self):
        await super().prepare_quiesce()
        if not self.agent_answers:
            raise QuiesceError("no agent", domain="fake")

    async def snapshot_names(self):
        return ("before-upgrade",)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "images" / "fake.raw"
    path.parent.mkdir()
    path.write_bytes(b"\0" * 65536)
    return path


@pytest.fixture
def domain(image):
    domain = Domain({"vda": image})
    # Locks are the host's: another run of the tests must not hold this one up.
    domain.uuid = str(uuid4())
    return domain


@pytest.fixture
def hypervisor(domain):
    return FakeHypervisor(domain)


@pytest.fixture
def examine(tmp_path, hypervisor):
    (tmp_path / "target").mkdir(mode=0o700)

    async def examine(*names, freeze=False, connects=True, hosts=("fake",), **group):
        settings = {"target": str(tmp_path / "target"), "hosts": list(hosts), **group}
        path = tmp_path / "config.yml"
        path.write_text(yaml.safe_dump({"groups": {"all": settings}}))

        @asynccontextmanager
        async def connect():
            if not connects:
                raise ConnectionFailedError("libvirt does not answer")
            yield hypervisor

        found = []
        async with open_lazy_hypervisor(connect) as on_demand:
            runtime = Runtime(load_config(path), found.append, on_demand)
            assert await run_doctor(runtime, DoctorRequest(names, freeze)) == tuple(found)
        return found

    return examine


def of(found, check, level=None):
    return [one.message for one in found if one.check == check and level in (None, one.level)]


async def test_a_host_in_order_has_no_problem(examine):
    found = await examine()
    assert [one for one in found if one.level is Level.PROBLEM] == []
    assert any("raw of 64.0 KiB" in message for message in of(found, "disk", Level.OK))
    assert of(found, "disk", Level.WARNING)[0].startswith("vdz is not backed up: has no image")
    assert "has no backup in group all yet" in of(found, "backups", Level.WARNING)
    assert "before-upgrade" in of(found, "leftover", Level.INFO)[0]


async def test_hooks_that_others_can_write_are_a_problem(examine, tmp_path):
    """``config.yml`` is written anew in its place, and keeps its mode."""
    hooks = {"before": "true"}
    assert of(await examine(hooks=hooks), "hooks") == []
    (tmp_path / "config.yml").chmod(0o666)
    (problem,) = of(await examine(hooks=hooks), "hooks", Level.PROBLEM)
    assert problem.endswith(f"others can write to {tmp_path}/config.yml (mode 0666)")
    assert of(await examine(), "hooks") == []


async def test_without_libvirt_the_rest_is_still_examined(examine):
    found = await examine(connects=False)
    assert of(found, "libvirt", Level.PROBLEM) == ["libvirt does not answer"]
    assert "can be written to" in of(found, "target", Level.OK)


async def test_an_unknown_group_is_an_error(examine):
    with pytest.raises(NotFoundError):
        await examine("nope")


async def test_a_group_without_a_target_is_a_problem(examine):
    found = await examine(target=None)
    assert of(found, "target", Level.PROBLEM) == ["has no target"]


async def test_a_target_that_is_not_there_is_a_problem(examine, tmp_path):
    (tmp_path / "target").rmdir()
    assert "No such file" in of(await examine(), "target", Level.PROBLEM)[0]
    (tmp_path / "target").touch()
    assert of(await examine(), "target", Level.PROBLEM) == ["is not a directory"]


async def test_a_target_that_others_can_write_to_is_warned_of(examine, tmp_path):
    assert not any("other users" in message for message in of(await examine(), "target"))
    (tmp_path / "target").chmod(0o770)
    assert any("mode 0770" in message for message in of(await examine(), "target", Level.WARNING))
    assert list((tmp_path / "target").iterdir()) == []


async def test_images_beside_the_backups_are_warned_of(examine):
    warnings = of(await examine(), "target", Level.WARNING)
    assert "is on the file system of the images of fake" in warnings


async def test_an_image_that_is_gone_is_a_problem(examine, image):
    image.unlink()
    assert str(image) in of(await examine(), "disk", Level.PROBLEM)[0]


async def test_state_that_cannot_be_saved_is_warned_of(examine, domain, tmp_path):
    domain.nvram = tmp_path / "web.fd"
    (message,) = of(await examine(), "state", Level.WARNING)
    assert message.startswith("the UEFI variables")
    assert str(domain.nvram) in message
    domain.nvram.touch()
    assert of(await examine(), "state") == []


async def test_a_block_job_is_a_problem(examine, domain):
    domain.jobs = frozenset({"vda"})
    assert "vda" in of(await examine(), "leftover", Level.PROBLEM)[0]


async def test_a_damaged_backup_is_a_problem_and_a_whole_one_has_an_age(examine, tmp_path):
    directory = tmp_path / "target" / "fake"
    directory.mkdir()
    (directory / f"{NAME}.json").write_text(json.dumps(DEFINITION))
    assert "data missing" in of(await examine(), "backups", Level.PROBLEM)[0]
    (directory / f"{NAME}_vda.raw").touch()
    found = await examine(connects=False)
    assert of(found, "backups", Level.PROBLEM) == []
    assert "the last backup is" in of(found, "backups")[0]


@pytest.fixture
def killed(tmp_path, domain, image):
    """The pending file of a backup, as the program leaves it when it is killed."""
    overlay = image.with_name("fake.raw.vbk-0a0b0c0d")
    disk = PendingDisk(str(image), "raw", str(overlay), f"{NAME}_vda.raw")
    pending = Pending(
        NAME, 1, "fake", "<domain/>", {"vda": disk}, "1.0.0", 1782874800,
        Packager("directory"), domain.uuid,
    )  # fmt: skip
    path = tmp_path / "target" / "fake" / f"{NAME}.json.pending"

    def kill():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pending_file.dumps(pending))
        overlay.touch()
        return path

    return kill


@pytest.mark.parametrize(
    ("checkpoints", "group", "warns"),
    [
        ((), {}, False),
        (("virtbackup-0a0b0c0d-11111111-2222-3333-4444-555555555555",), {}, True),
        ((), {"track_with_snapshots": True}, True),
    ],
)
async def test_internal_snapshots_that_could_not_be_reverted_to_are_told(
    examine, domain, image, checkpoints, group, warns
):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    subprocess.run(["qemu-img", "snapshot", "-c", "before", image], check=True)
    domain.image_format = "qcow2"
    domain.checkpoints = checkpoints
    found = await examine(packager="repository", **group)
    warned = [text for text in of(found, "disk", Level.WARNING) if "keeps from reverting" in text]
    assert bool(warned) == warns
    told = [text for text in of(found, "disk", Level.INFO) if "track_with_snapshots" in text]
    assert bool(told) == (not group)


async def test_what_a_restore_in_place_keeps_or_left_is_no_overlay(examine, image):
    kept = image.with_name(f"{image.name}.before-restore-20260301-021500")
    left = [image.with_name(f"{image.name}.vbk-{kind}-0a0b0c0d") for kind in ("old", "restore")]
    for path in (kept, *left):
        path.touch()
    found = await examine()
    assert of(found, "leftover", Level.PROBLEM) == []
    assert of(found, "leftover", Level.WARNING) == ["left by a restore in place"] * 2
    assert "kept by a restore in place, as it was before" in of(found, "leftover", Level.INFO)


async def test_a_killed_backup_is_a_problem_and_its_overlay_not_another(examine, killed):
    assert of(await examine(), "leftover", Level.PROBLEM) == []
    path = killed()
    (problem,) = of(await examine(), "leftover", Level.PROBLEM)
    assert "was killed" in problem
    path.unlink()
    (problem,) = of(await examine(), "leftover", Level.PROBLEM)
    assert "no pending file" in problem


@pytest.mark.parametrize(
    ("suffix", "level", "said"),
    [
        ("old-0a0b0c0d", Level.WARNING, "left by a restore in place"),
        ("restore-0a0b0c0d", Level.WARNING, "left by a restore in place"),
        ("0a0b0c0d.part", Level.PROBLEM, "a part that a restore was writing"),
        ("0a0b0c0d.scratch", Level.PROBLEM, "a scratch image"),
        ("0a0b0c0d", Level.PROBLEM, "an overlay"),
    ],
)
async def test_what_lies_beside_an_image_is_told_by_what_it_is(examine, image, suffix, level, said):
    """Of an overlay alone it must be feared that a guest wrote to it."""
    image.with_name(f"fake.raw.vbk-{suffix}").touch()
    found = [f for f in await examine() if f.check == "leftover" and "vbk-" in f.subject]
    assert [(f.level, f.message.startswith(said)) for f in found] == [(level, True)]
    assert ("what a guest wrote" in found[0].advice) == (said == "an overlay")


async def test_a_backup_that_runs_is_left_alone(killed, tmp_path, domain):
    path = killed()
    locks = LocalHost(tmp_path)
    lock = tmp_path / f"virtbackup-{domain.uuid}.lock"
    judged = FoundPending(pending_file.loads(path.read_bytes(), path), TargetFile.of(path))
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT)
    try:
        assert not await locks.is_domain_locked(domain.uuid)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert await locks.is_domain_locked(domain.uuid)
        assert (await leftovers.judge_pending(judged, locks)).level is Level.INFO
    finally:
        os.close(descriptor)
    assert not await locks.is_domain_locked(domain.uuid)
    assert (await leftovers.judge_pending(judged, locks)).level is Level.PROBLEM


async def test_overlays_of_a_backup_of_another_configuration_are_no_problem(
    examine, hypervisor, image, state_directory
):
    """Its pending file is in a target that this configuration does not name."""
    other = Domain({"vda": image.with_name("other.raw")})
    other.name, other.uuid = "other", "5b7ab4c7-6f0a-4a55-b1a1-7d0a5c1f1f01"
    hypervisor.domains[other.name] = other
    overlays = [image.with_name(f"other.{kind}.vbk-0a0b0c0d") for kind in ("raw", "img")]
    for overlay in overlays:
        overlay.touch()
    async with hold_domain(
        LocalHost(lock_directory(state_directory)), "other", other.uuid, "backup"
    ):
        found = [one for one in await examine() if one.check == "leftover"]
    problems = [one.subject for one in found if one.level is Level.PROBLEM]
    assert problems == [str(overlays[1])]
    found = [one for one in await examine() if one.check == "leftover"]
    assert {str(path) for path in overlays} <= {one.subject for one in found}


async def test_the_agent_is_asked_only_where_quiesce_is_wanted(examine, domain):
    await examine(freeze=True)
    assert not {"prepare_quiesce", "freeze"} & set(domain.calls)
    assert of(await examine(quiesce=True), "agent", Level.OK) == ["the guest agent answers"]
    assert "freeze" not in domain.calls
    domain.agent_answers = False
    found = await examine(quiesce=True)
    assert of(found, "agent", Level.WARNING) == ["backups will not be quiesced: no agent"]


async def test_a_guest_is_frozen_on_demand_and_always_thawed(examine, domain):
    found = await examine(quiesce=True, freeze=True)
    assert "froze and thawed in" in of(found, "agent", Level.OK)[0]
    assert domain.calls[-3:] == ["freeze", "thaw", "release"]

    def refuse():
        raise QuiesceError("half of it is frozen", domain="fake")

    domain.before["freeze"] = [refuse]
    found = await examine(quiesce=True, freeze=True)
    assert "half of it is frozen" in of(found, "agent", Level.WARNING)[0]
    assert domain.calls[-3:] == ["freeze", "thaw", "release"]


async def test_a_domain_that_is_shut_off_is_not_asked(examine, domain):
    domain.shut_off()
    found = await examine(quiesce=True, freeze=True)
    assert "prepare_quiesce" not in domain.calls
    assert of(found, "agent", Level.INFO)


async def test_a_pull_needs_a_place_for_socket_and_scratch(examine, tmp_path_factory):
    found = await examine(method="pull")
    (problem,) = of(found, "disk", Level.PROBLEM)
    assert problem.startswith("no directory in which QEMU could make a socket")
    scratch = tmp_path_factory.mktemp("s")
    found = await examine(method="pull", scratch=str(scratch))
    assert "vda: served by QEMU" in of(found, "disk", Level.OK)[0]
    assert "free for its scratch image in" in of(found, "overlay")[0]
    found = await examine(method="pull", scratch=str(scratch / "missing"))
    assert of(found, "disk", Level.PROBLEM)
