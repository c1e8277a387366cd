"""``restore`` on real QEMU: domains defined, twins started, images replaced in place."""

import contextlib
import filecmp

import pytest
from anyio import to_thread

from e2e.command import events, virtbackup, write_config
from lab.disks import DiskSpec
from lab.domains import LabDomain
from lab.process import LabError, run
from lab_site import LabSite

DISKS = (DiskSpec("vda", backing=1), DiskSpec("vdb", "raw", fs=None))


@pytest.fixture
def site(daemon, make_domain, tmp_path):
    return RestoredSite(daemon, make_domain, tmp_path)


class RestoredSite(LabSite):
    """A guest with a backing chain and a raw disk, its backup, and commands on them."""

    def __init__(self, daemon, make_domain, tmp_path):
        super().__init__(daemon, make_domain(*DISKS), tmp_path, quiesce=True)
        self.domain.guest_exec("echo first > /mnt/vda/file; sync")
        self.domain.qemu_io("vdb", "write -P 7 1M 64k")
        self.domain.qemu_io("vdb", "flush")
        self.images = self.domain.images()
        self.run("backup")

    def refused(self, *words):
        return self.attempt("restore", "all", self.name, *words)

    def packaged(self, dev):
        (path,) = self.definition_path.parent.glob(f"*_{dev}.*")
        return path

    def lab_domain(self, name):
        return LabDomain(self.daemon, name, self.domain.console, agent=True)


def test_restored_domain_is_defined_as_it_was_and_boots(site):
    uuid = site.domain.xml().findtext("uuid")
    refused = site.refused(site.restored, "--define")
    assert refused.returncode == 10
    assert "--name" in refused.stderr
    assert not site.restored.exists()

    site.domain.undefine()
    done = site.restore(site.restored, "--define", "--start", "--json")
    (defined,) = [event for event in events(done.stdout) if event["event"] == "domain_defined"]
    assert (defined["domain"], defined["uuid"], defined["started"]) == (site.name, uuid, True)
    assert defined["rebased"] == [site.images["vda"].name]

    domain = site.lab_domain(site.name)
    domain.wait_booted()
    assert domain.guest_exec("cat /mnt/vda/file") == "first\n"
    assert {image.parent for image in domain.images().values()} == {site.restored}
    info = run("qemu-img", "info", "-U", "--backing-chain", site.restored / site.images["vda"].name)
    assert str(site.daemon.images) not in info
    assert filecmp.cmp(site.restored / site.images["vdb"].name, site.packaged("vdb"), shallow=False)


def test_renamed_twin_runs_beside_the_original(site):
    site.domain.guest_exec("echo later > /mnt/vda/file; sync")
    done = site.restore(site.restored, "--name", "twin", "--start", "--disk", "vda")
    twin = site.lab_domain("twin")
    try:
        assert done.returncode == 0, done.stderr
        assert "vdb is not in the backup" in done.stderr
        twin._wait(twin._agent_answers, "answer by its agent", 90)
        assert twin.guest_exec("cat /mnt/vda/file") == "first\n"
        assert site.domain.guest_exec("cat /mnt/vda/file") == "later\n"
        assert site.domain.state() == twin.state() == "running"
        assert twin.xml().findtext("uuid") != site.domain.xml().findtext("uuid")
        assert set(twin.images()) == {"vda"}
    finally:
        with contextlib.suppress(LabError):  # it was not even defined
            twin.undefine()


def test_running_domain_is_not_restored_in_place(site):
    refused = site.refused("--in-place")
    assert refused.returncode == 10
    assert "is running" in refused.stderr
    assert site.domain.state() == "running"
    assert site.domain.images() == site.images


async def test_shut_off_domain_is_restored_in_place_byte_for_byte(site):
    modes = {dev: image.stat() for dev, image in site.images.items()}
    site.domain.guest_exec("echo second > /mnt/vda/file; sync")
    site.domain.qemu_io("vdb", "write -P 8 1M 64k")
    await to_thread.run_sync(site.domain.guest_shutdown)

    done = site.restore("--in-place", "--json")

    assert done.returncode == 0, done.stderr
    (restored,) = [event for event in events(done.stdout) if event["event"] == "restore_done"]
    assert restored["files"] == [str(image) for image in site.images.values()]
    for dev, image in site.images.items():
        assert filecmp.cmp(image, site.packaged(dev), shallow=False)
        assert image.stat().st_mode == modes[dev].st_mode
    assert not list(site.daemon.images.glob("*.vbk-*"))
    site.domain.start()
    site.domain.wait_booted()
    assert site.domain.guest_exec("cat /mnt/vda/file") == "first\n"


async def test_changed_backing_image_is_not_replaced(site):
    await to_thread.run_sync(site.domain.guest_shutdown)
    before = {image: image.read_bytes() for image in site.images.values()}
    (backing,) = [path for path in site.daemon.images.glob(f"{site.images['vda'].stem}*")
                  if path != site.images["vda"]]  # fmt: skip
    with backing.open("r+b") as file:
        file.seek(200_000)
        file.write(b"changed")
    changed = backing.read_bytes()
    refused = site.refused("--in-place")
    assert refused.returncode == 13
    assert "is not what it was at the backup" in refused.stderr
    assert backing.read_bytes() == changed
    assert all(image.read_bytes() == data for image, data in before.items())
    site.restore("--in-place", "--disk", "vdb")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x", "--in-place"], "either a TARGET_DIR or --in-place"),
        (["--in-place", "--name", "x"], "neither --define"),
        (["x", "--start"], "--start needs"),
    ],
)
def test_options_that_exclude_each_other(tmp_path, words, said):
    config = write_config(tmp_path, "test:///default", ["x"])
    ended = virtbackup("-c", config, "restore", "all", "x", *words)
    assert ended.returncode == 2
    assert said in ended.stderr
