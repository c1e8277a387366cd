"""What is mounted: read from the kernel's text, told apart, and asked with a limit of time."""

import os
import threading
from pathlib import Path

import pytest

from virtbackup_async.errors import StorageError
from virtbackup_async.files.mounts import (
    Mount,
    answer_in_time,
    block_device,
    disks_below,
    mount_of,
    parse_mounts,
    place_on,
    read_mounts,
    space_at,
)

MOUNTINFO = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /srv rw - tmpfs none rw
31 30 8:17 / /srv/my\040backups rw master:1 - xfs /dev/sdb1 rw
32 22 8:33 / /srv/my\040backups rw - ext4 /dev/sdc1 rw
33 22 8:49 / /mnt/old ro,noatime - ext4 /dev/sdd1 rw
34 22 8:65 / /mnt/broken rw,noatime - ext4 /dev/sde1 ro,errors=remount-ro
35 22 0:50 / /mnt/nas rw - nfs4 nas:/export rw,hard
nonsense
36 22 0:51 / /cut
"""
MOUNTS = {mount.point: mount for mount in parse_mounts(MOUNTINFO)}


@pytest.mark.parametrize(
    ("path", "source"),
    [("/srv/my backups/a", "/dev/sdc1"), ("/srv/mine", "none"), ("/srvs", "/dev/vda")],
)
def test_the_deepest_and_last_mount_is_where_a_path_lies(path, source):
    mount = mount_of(Path(path), parse_mounts(MOUNTINFO))
    assert mount is not None
    assert mount.source == source


def test_without_a_mount_there_is_none():
    assert mount_of(Path("/x"), ()) is None


def test_a_line_that_is_none_is_passed_over():
    assert Path("/cut") not in MOUNTS
    assert MOUNTS[Path("/srv/my backups")].device == "8:33"


def test_a_mount_or_its_file_system_may_be_read_only():
    read_only = [str(point) for point, mount in MOUNTS.items() if mount.is_read_only]
    assert read_only == ["/mnt/old", "/mnt/broken"]


def mount(kind, device="0:99", point="/x"):
    return Mount(Path(point), kind, "source", device)


@pytest.mark.parametrize(
    ("found", "is_storage"),
    [
        (mount("ext4", "8:1"), True),
        (mount("unheard-of", "8:1"), True),
        (mount("squashfs", "7:1"), False),
        (mount("iso9660", "11:0"), False),
        (mount("btrfs"), True),
        (mount("zfs"), True),
        (mount("nfs4"), True),
        (mount("cifs"), True),
        (mount("fuse.sshfs"), True),
        (mount("fuse.gvfsd-fuse"), False),
        (mount("fuse"), False),
        (mount("overlay", point="/"), True),
        (mount("overlay", point="/var/lib/docker/overlay2/1/merged"), False),
        *(
            (mount(kind), False)
            for kind in ("proc", "sysfs", "cgroup2", "tmpfs", "devpts", "autofs", "bpf", "nsfs")
        ),
        (Mount(Path("/"), "ext4", "no device known"), False),
    ],
    ids=lambda value: value.type if isinstance(value, Mount) else "",
)
def test_only_what_keeps_files_is_storage(found, is_storage):
    assert found.is_storage is is_storage


def test_what_is_in_memory_or_elsewhere_is_told():
    assert MOUNTS[Path("/srv")].is_in_memory
    assert MOUNTS[Path("/mnt/nas")].is_network
    assert mount("fuse.sshfs").is_network
    assert not MOUNTS[Path("/")].is_network


def test_this_machine_has_a_root_with_room():
    assert mount_of(Path("/"), read_mounts()) is not None
    status = os.statvfs("/")
    assert space_at(Path("/")).total_bytes == status.f_blocks * status.f_frsize


async def test_a_file_system_that_does_not_answer_is_left_alone():
    answer = threading.Event()
    try:
        with pytest.raises(StorageError, match="/dead does not answer"):
            await answer_in_time(lambda _path: answer.wait(), Path("/dead"), timeout_s=0.01)
    finally:
        answer.set()
    assert await answer_in_time(str, Path("/alive")) == "/alive"


async def test_stuck_threads_do_not_keep_others_from_asking():
    answer = threading.Event()
    try:
        for _ in range(50):
            with pytest.raises(StorageError):
                await answer_in_time(lambda _path: answer.wait(), Path("/dead"), timeout_s=0)
        assert await answer_in_time(str, Path("/alive")) == "/alive"
    finally:
        answer.set()


@pytest.fixture
def devices(tmp_path):
    """A volume on two disks, by a partition of one; and a device that is below itself."""
    block = tmp_path / "block"
    for name in ("sda/slaves", "sda/sda1/slaves", "sdb/slaves", "dm-0/slaves", "dm-1/slaves"):
        (block / name).mkdir(parents=True)
    (block / "sda/sda1/partition").write_text("1")
    (block / "dm-0/slaves/sda1").symlink_to(block / "sda/sda1")
    (block / "dm-0/slaves/sdb").symlink_to(block / "sdb")
    (block / "dm-1/slaves/dm-1").symlink_to(block / "dm-1")
    numbers = tmp_path / "dev"
    numbers.mkdir()
    for number, name in (
        ("8:1", "sda/sda1"),
        ("8:16", "sdb"),
        ("253:0", "dm-0"),
        ("253:1", "dm-1"),
    ):
        (numbers / number).symlink_to(block / name)
    return numbers


@pytest.mark.parametrize(
    ("number", "disks"),
    [
        ("8:1", {"sda"}),
        ("8:16", {"sdb"}),
        ("253:0", {"sda", "sdb"}),
        ("253:1", set()),
        ("0:26", set()),
    ],
)
def test_a_device_is_on_whole_disks(devices, number, disks):
    assert disks_below(number, devices) == disks


@pytest.mark.parametrize(
    ("first", "second", "is_shared"),
    [
        (("zfs", "tank/images"), ("zfs", "tank"), True),
        (("zfs", "tank/images"), ("zfs", "backup/tank"), False),
        (("nfs4", "nas:/a"), ("nfs4", "nas:/b"), True),
        (("nfs4", "nas:/a"), ("nfs", "nas2:/a"), False),
        (("nfs4", "[fd00::1]:/a"), ("nfs4", "[fd00::1]:/b"), True),
        (("nfs4", "[fd00::1]:/a"), ("nfs4", "[fd00::2]:/a"), False),
        (("cifs", "//nas/a"), ("cifs", "//nas/b"), True),
        (("cifs", "//nas/a"), ("zfs", "nas/a"), False),
    ],
)
def test_one_pool_and_one_server_are_one_disk(first, second, is_shared):
    places = [
        place_on(Mount(Path("/x"), kind, source, f"0:{number}"))
        for number, (kind, source) in enumerate((first, second))
    ]
    assert places[0].shares_disk(places[1]) is is_shared
    assert not places[0].shares_file_system(places[1])


@pytest.mark.parametrize("path", ["/dev/null", "/nowhere", "relative", "nas:/export", "none"])
def test_only_a_block_device_has_a_number(path):
    assert block_device(Path(path)) is None
