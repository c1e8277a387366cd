"""What a backup would read, said before: the images are real, and nothing is touched."""

import subprocess
from uuid import uuid4

import pytest
import yaml

from fakes.hypervisor import FakeHypervisor
from fakes.pulled_domain import PulledDomain
from virtbackup_async.config.loading import load_config
from virtbackup_async.engine.backup import preview as preview_module
from virtbackup_async.engine.backup.preview import run_preview
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import BackupsFailedError, NotFoundError
from virtbackup_async.events import BackupFailed, DiskDone, TargetPlanned, Warned
from virtbackup_async.files.mounts import Space

MIB = 1 << 20
LOOKS = {"info", "sources", "prepare_backup", "changed_bytes"}


def run(*words):
    subprocess.run([*map(str, words)], check=True, capture_output=True)


class Site:
    """A target and the domain ``fake``, on qcow2 images that QEMU would serve."""

    def __init__(self, path):
        self.path = path
        self.target = path / "target"
        self.target.mkdir()
        self.images = {dev: path / f"{dev}.qcow2" for dev in ("vda", "vdb")}
        for image in self.images.values():
            run("qemu-img", "create", "-q", "-f", "qcow2", image, "24M")
        run("qemu-io", "-c", "write -P 1 0 6M", self.images["vda"])
        self.domain = PulledDomain(self.images)
        self.domain.uuid = str(uuid4())
        (path / "s").mkdir()
        self.group = {
            "packager": "repository", "hosts": ["fake"], "audit_percent": 0,
            "scratch": str(path / "s"),
        }  # fmt: skip
        self.groups = {}
        self.events = []

    def runtime(self):
        path = self.path / "config.yml"
        group = {"target": str(self.target), **self.group}
        path.write_text(
            yaml.safe_dump(
                {
                    "state_directory": str(self.path / "state"),
                    "groups": {"g": group, **self.groups},
                }
            )
        )
        self.events.clear()
        return Runtime(
            load_config(path),
            self.events.append,
            FakeHypervisor(self.domain),
            lock_directory=self.path / "locks",
        )

    async def preview(self, *names):
        return await run_preview(self.runtime(), BackupRequest(names or ("g",)))

    async def back_up(self):
        run = await run_backup(self.runtime(), BackupRequest(("g",)))
        assert not run.failed, run.failed
        (done,) = run.done
        return done

    def files(self):
        """All files with what would tell that one was written."""
        return {
            path: (path.lstat().st_mtime_ns, path.lstat().st_size, path.lstat().st_ino)
            for path in self.path.rglob("*")
            if path.name != "config.yml" and path != self.path
        }


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


async def test_nothing_is_touched(site):
    for _ in range(2):
        before = site.files()
        site.domain.calls.clear()
        await site.preview()
        assert set(site.domain.calls) <= LOOKS
        assert site.files() == before
        await site.back_up()


async def test_the_first_backup_is_read_in_full_and_says_why(site):
    preview = await site.preview()
    vda, vdb = preview.disks
    assert (vda.group, vda.domain, vda.disk, vda.method) == ("g", "fake", "vda", "pull")
    assert (vda.incremental, vda.base) == (False, None)
    assert vda.reason == "no earlier backup of it has a checkpoint"
    assert vda.size_bytes == vdb.size_bytes == 24 * MIB
    assert 6 * MIB <= vda.read_bytes < 7 * MIB
    assert vdb.read_bytes < MIB
    (target,) = preview.targets
    assert (target.target, target.backups, target.fits) == (str(site.target), 1, True)
    assert target.read_bytes == vda.read_bytes + vdb.read_bytes


async def test_the_preview_is_what_the_backup_then_does(site):
    await site.back_up()
    site.domain.changed = {"vda": 3 * 65536, "vdb": 0}
    preview = await site.preview()
    assert [(disk.incremental, disk.read_bytes) for disk in preview.disks] == [
        (True, 3 * 65536),
        (True, 0),
    ]
    await site.back_up()
    done = [event for event in site.events if isinstance(event, DiskDone)]
    assert [disk.base for disk in preview.disks] == [disk.base for disk in done]
    assert None not in {disk.base for disk in done}


async def test_an_audit_is_counted(site):
    await site.back_up()
    site.domain.changed = {"vda": 65536, "vdb": 0}
    site.group["audit_percent"] = 50
    vda, _ = (await site.preview()).disks
    assert 3 * MIB < vda.read_bytes < 4 * MIB


async def test_a_checkpoint_that_libvirt_forgot_may_still_have_its_bitmap(site):
    await site.back_up()
    site.domain.checkpoints.clear()
    vda, _ = (await site.preview()).disks
    assert not vda.incremental
    assert vda.reason.startswith("libvirt or QEMU lost the dirty bitmap of checkpoint virtbackup-")
    assert vda.reason.endswith("or libvirt alone did: then only the changes are read")
    assert vda.read_bytes > 6 * MIB


async def test_how_much_a_shut_off_domain_changed_only_qemu_knows(site):
    await site.back_up()
    site.domain.shut_off()
    preview = await site.preview()
    assert [(disk.incremental, disk.read_bytes) for disk in preview.disks] == [(True, None)] * 2
    assert [target.fits for target in preview.targets] == [None]


@pytest.mark.parametrize(
    ("group", "active", "method", "reason"),
    [
        ({"packager": "tar"}, True, "snapshot", "packager tar takes over nothing"),
        ({"packager": "tar"}, False, "copy", "packager tar takes over nothing"),
        ({"method": "snapshot"}, True, "snapshot", "only `method: pull` knows what changed"),
    ],
)
async def test_what_is_never_incremental_says_why(site, group, active, method, reason):
    site.group |= group
    if not active:
        site.domain.shut_off()
    vda, _ = (await site.preview()).disks
    assert (vda.method, vda.incremental) == (method, False)
    assert reason in vda.reason


async def test_images_below_are_read_too(site):
    below = site.path / "below.raw"
    below.write_bytes(b"b" * 4 * MIB)
    image = site.images["vdb"]
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "raw", image)
    site.group["packager"] = "directory"
    _, vdb = (await site.preview()).disks
    assert 4 * MIB <= vdb.read_bytes < 5 * MIB


@pytest.mark.parametrize(
    ("packager", "fits"),
    [("directory", False), ("tar", False), ("zstd", None), ("repository", None)],
)
async def test_what_does_not_fit_uncompressed_may_fit_compressed(site, packager, fits, monkeypatch):
    site.group["packager"] = packager
    monkeypatch.setattr(preview_module, "space_at", lambda _path: Space(100 * MIB, MIB))
    (target,) = (await site.preview()).targets
    assert (target.free_bytes, target.fits) == (MIB, fits)


async def test_a_domain_that_could_not_be_backed_up_is_told_as_by_the_backup(site):
    for image in site.images.values():
        image.unlink()
    site.group["packager"] = "tar"
    preview = await site.preview()
    (failed,) = preview.failed
    assert "vda cannot be read" in failed.error
    assert preview.disks == ()
    site.target.rmdir()
    (failed,) = (await site.preview()).failed
    assert failed.error == (
        f"target {site.target} is not a directory. Create it, or mount the file system that holds "
        "it."
    )
    (target,) = [event for event in site.events if isinstance(event, TargetPlanned)]
    assert (target.free_bytes, target.fits) == (None, None)


async def test_a_domain_that_libvirt_does_not_know_is_told(site):
    site.group["hosts"] = ["fake", "gone"]
    preview = await site.preview()
    assert [(failed.domain, failed.reason) for failed in preview.failed] == [
        ("gone", "libvirt knows no such domain. `virsh list --all` shows the domains.")
    ]
    assert len(preview.disks) == 2
    with pytest.raises(NotFoundError):
        await site.preview("nope")


async def test_a_killed_backup_is_undone_first_and_not_by_this(site):
    overlay = site.path / "vda.qcow2.vbk-0a0b0c0d"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", site.images["vda"], "-F", "qcow2", overlay)
    site.domain.own["vda"] = site.domain.live["vda"] = overlay
    preview = await site.preview()
    assert (preview.disks, preview.failed) == ((), ())
    (warned,) = [event.message for event in site.events if isinstance(event, Warned)]
    assert "still runs on the overlay of a killed backup" in warned
    assert [target.fits for target in preview.targets] == [None]
    assert not [event for event in site.events if isinstance(event, BackupFailed)]


async def test_each_target_is_measured_once(site):
    (site.path / "other").mkdir()
    site.groups["h"] = {**site.group, "target": str(site.path / "other"), "packager": "zstd"}
    preview = await site.preview("g", "h")
    assert [(target.target, target.backups) for target in preview.targets] == [
        (str(site.target), 1),
        (str(site.path / "other"), 1),
    ]


async def test_a_domain_that_is_worked_on_is_told(site):
    runtime = site.runtime()
    lock = await runtime.host.images.lock_domain("fake", site.domain.uuid, "backup")
    try:
        await run_preview(runtime, BackupRequest(("g",)))
    finally:
        lock.release()
    assert Warned("another process works on it now", "fake") in site.events


async def test_a_run_without_anything_to_back_up_says_so_before(site):
    site.group["hosts"] = ["r:^nobody"]
    with pytest.raises(BackupsFailedError, match="nothing would be backed up: group g matches no"):
        await site.preview()
    preview = await run_preview(site.runtime(), BackupRequest(("g",), allow_empty=True))
    assert (preview.disks, preview.targets) == ((), ())
