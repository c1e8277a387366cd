"""The lab itself: a test on top of it may trust the guest, the agent and the daemon."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.disks import MIB, DiskSpec
from lab.domains import LabDomain, running
from lab.libvirt_root import Daemon, open_embedded
from lab.process import LabError, run

MakeDomain = Callable[..., LabDomain]


def has_pattern(image: Path, image_format: str) -> bool:
    """Whether 128 KiB of nines are at 5 MiB; the image is read though a guest may hold it."""
    try:
        run("qemu-io", "-r", "-U", "-f", image_format, "-c", "read -P 9 5M 128k", image)
    except LabError as error:
        if "Pattern verification failed" in str(error):
            return False
        raise
    return True


def write_pattern(domain: LabDomain, dev: str) -> None:
    """Put 128 KiB of nines at 5 MiB of the disk, and on the image."""
    domain.qemu_io(dev, "write -P 9 5M 128k")
    domain.qemu_io(dev, "flush")


def pull_up(domain: LabDomain, dev: str) -> None:
    """Commit the overlay of a disk and pivot back to the image below it."""
    domain.root.virsh("blockcommit", domain.name, dev, "--active", "--pivot", "--wait")


def written_lines(domain: LabDomain) -> int:
    """How many lines the writer in the guest has on its disk."""
    return int(domain.guest_exec("wc -l </mnt/vda/writer.log"))


def test_guest_mounts_every_disk_and_runs_commands(make_domain: MakeDomain) -> None:
    domain = make_domain(
        DiskSpec("vda", serial="first"),
        DiskSpec("vdb", format="raw", size_bytes=32 * MIB),
        DiskSpec("vdc", backing=2),
        DiskSpec("vdd", fs=None),
        DiskSpec("hda", kind="cdrom", format="raw", fs=None),
    )
    mounted = domain.guest_exec("awk '/ext4/ { print $2, $4 }' /proc/mounts").splitlines()
    assert [line.split(",")[0] for line in mounted] == [f"/mnt/vd{letter} rw" for letter in "abc"]
    assert domain.guest_exec("cat /sys/block/vda/serial") == "first"
    assert int(domain.guest_exec("cat /sys/block/vdb/size")) * 512 == 32 * MIB
    with pytest.raises(LabError, match="in the guest: 3"):
        domain.guest_exec("exit 3")


def test_content_of_a_directory_is_on_the_disk(make_domain: MakeDomain, tmp_path: Path) -> None:
    (tmp_path / "greeting").write_text("hello")
    domain = make_domain(DiskSpec("vda", content=tmp_path))
    assert domain.guest_exec("cat /mnt/vda/greeting") == "hello"


def test_scsi_disks_are_mounted(make_domain: MakeDomain) -> None:
    domain = make_domain(DiskSpec("sda"), bus="scsi")
    assert "/mnt/sda" in domain.guest_exec("cat /proc/mounts")
    write_pattern(domain, "sda")
    assert has_pattern(domain.image("sda"), "qcow2")


def test_guest_without_agent_boots_and_does_not_answer(make_domain: MakeDomain) -> None:
    domain = make_domain(agent=False)
    with pytest.raises(LabError, match="agent"):
        domain.agent("guest-ping")


def test_freeze_stops_the_writer_until_the_thaw(make_domain: MakeDomain) -> None:
    domain = make_domain(DiskSpec("vda"), writer="vda")
    # Nobody can ask a frozen guest: it says so itself when a write waits for the thaw.
    domain.guest_exec(
        "(until grep -q percpu_rwsem_wait /proc/[0-9]*/wchan; do usleep 10000; done;"
        " echo a write waits >/dev/console) >/dev/null 2>&1 &"
    )
    domain.agent("guest-fsfreeze-freeze")
    assert domain.agent("guest-fsfreeze-status") == "frozen"
    before = domain.image("vda").read_bytes()
    wait_until(lambda: "a write waits" in domain.console_text())
    assert domain.image("vda").read_bytes() == before
    assert domain.agent("guest-fsfreeze-thaw") == 1
    first = written_lines(domain)
    wait_until(lambda: written_lines(domain) > first)


def test_snapshot_and_pivot_return_to_the_base(make_domain: MakeDomain) -> None:
    domain = make_domain(DiskSpec("vda"), DiskSpec("vdb", format="raw"), writer="vda")
    bases = domain.images()
    domain.root.virsh("snapshot-create-as", domain.name, "--disk-only", "--atomic",
                      "--no-metadata", "--quiesce", "--name", "snap")  # fmt: skip
    overlays = domain.images()
    assert not set(overlays.values()) & set(bases.values())
    assert domain.images(inactive=True) == overlays
    write_pattern(domain, "vdb")
    assert not has_pattern(bases["vdb"], "raw")
    for dev in overlays:
        pull_up(domain, dev)
    assert domain.images() == domain.images(inactive=True) == bases
    assert has_pattern(bases["vdb"], "raw")
    first = written_lines(domain)
    wait_until(lambda: written_lines(domain) > first)


def test_qemu_io_writes_what_the_guest_reads(make_domain: MakeDomain) -> None:
    domain = make_domain(DiskSpec("vda"), DiskSpec("vdb", fs=None))
    write_pattern(domain, "vdb")
    read = "dd if=/dev/vdb bs=128k skip=40 count=1 2>/dev/null | tr -d '\\t' | wc -c"
    assert domain.guest_exec(read).strip() == "0"
    assert has_pattern(domain.image("vdb"), "qcow2")
    domain.qemu_io("vdb", "write -z 5M 128k")
    domain.qemu_io("vdb", "flush")
    assert not has_pattern(domain.image("vdb"), "qcow2")
    with pytest.raises(LabError, match="no disk vdz"):
        domain.qemu_io("vdz", "flush")


def test_killed_daemon_finds_its_guests_again(daemon: Daemon, make_domain: MakeDomain) -> None:
    domain = make_domain(DiskSpec("vda"), writer="vda")
    pid = daemon.guest_pids()[domain.name]
    first_daemon = daemon.pid
    daemon.kill()
    with pytest.raises(LabError):
        domain.state()
    daemon.start()
    assert daemon.pid != first_daemon
    assert domain.state() == "running"
    assert daemon.guest_pids()[domain.name] == pid
    domain.wait_booted()
    assert "ext4" in domain.guest_exec("cat /proc/mounts")


@pytest.mark.parametrize("mode", ["agent", "acpi"])
def test_guest_powers_off_cleanly_and_starts_again(make_domain: MakeDomain, mode: str) -> None:
    domain = make_domain(DiskSpec("vda", format="raw"), writer="vda")
    wait_until(lambda: written_lines(domain) > 0)
    domain.guest_shutdown(mode)
    assert "clean" in run("tune2fs", "-l", domain.image("vda"))
    run("e2fsck", "-fn", domain.image("vda"))
    domain.start()
    domain.wait_booted()
    assert written_lines(domain) > 0


def test_name_with_markup_and_quotes(make_domain: MakeDomain) -> None:
    name = """a b'"&<c>é"""
    domain = make_domain(name=name)
    assert domain.xml().findtext("name") == name
    assert domain.agent("guest-ping") == {}


def test_embedded_guest_outlives_its_clients() -> None:
    with open_embedded() as embedded, running(embedded, "inside", [DiskSpec("vda")]) as domain:
        assert re.fullmatch(r"qemu:///embed\?root=/tmp/vbk-\w+", embedded.uri)
        pid = embedded.guest_pids()["inside"]
        write_pattern(domain, "vda")
        assert has_pattern(domain.image("vda"), "qcow2")
        assert domain.guest_exec("echo here") == "here\n"
        assert embedded.guest_pids() == {"inside": pid}


def wait_until(is_so: Callable[[], bool], timeout_s: float = 30) -> None:
    """Ask again and again; a claim about the guest may need a moment to come true."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
