"""A backup that is interrupted, or killed: the guest is at home, nothing is left."""

import filecmp
import os
import signal
import socket

import pytest
from command import ENDED_BY, PROGRAM, interrupt, read_until, start, virtbackup, write_config

from lab.disks import DiskSpec
from lab.domains import define
from terminal import on_terminal

MIB = 1 << 20
SLOW = {"packager": "tar", "packager_opts": {"compression": "xz", "compression_lvl": 9}}


@pytest.fixture
def domain(daemon, request):
    """A running domain whose copy takes seconds with the slow packager: it does not compress."""
    domain = define(daemon, "e2e-" + request.node.name[-30:], [DiskSpec("vda", "raw", fs=None)],
                    agent=False)  # fmt: skip
    with domain.images()["vda"].open("r+b") as image:
        image.write(os.urandom(48 * MIB))
    domain.start()
    yield domain
    domain.undefine()


def files(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


def at_home(domain, images):
    overlays = list(domain.root.images.glob("*.vbk-*"))
    return domain.images() == domain.images(inactive=True) == images and not overlays


def start_copying(config):
    process = start("-c", config, "backup", "--json")
    read_until(process, "phase", phase="copying")
    return process


@pytest.mark.parametrize("name", ENDED_BY)
def test_a_signal_puts_the_domain_back_and_removes_the_backup(daemon, domain, tmp_path, name):
    images = domain.images()
    config = write_config(tmp_path, daemon.uri, [domain.name], **SLOW)
    process = start_copying(config)
    rest, err = interrupt(process, name)
    assert process.returncode == ENDED_BY[name], err
    (failed,) = [event for event in rest if event["event"] == "backup_failed"]
    assert failed["cancelled"]
    assert not failed["left_pending"]
    assert rest[-1]["event"] == "summary"
    assert rest[-1]["exit_code"] == ENDED_BY[name]
    assert not rest[-1]["ok"]
    assert at_home(domain, images)
    assert files(tmp_path / "target") == []


@pytest.mark.parametrize("name", ENDED_BY)
def test_the_first_signal_ends_the_wait_for_a_libvirt_that_never_answers(tmp_path, name):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        uri = f"qemu+unix:///session?socket={path}"
        process = start("-c", write_config(tmp_path, uri, ["web"]), "backup", "--json")
        accepted, _peer = listener.accept()
        with accepted:
            rest, err = interrupt(process, name)
    assert process.returncode == ENDED_BY[name], err
    assert rest[-1]["exit_code"] == ENDED_BY[name]


def test_ctrl_c_in_the_live_view_says_what_it_undid_and_what_was_not_begun(
    daemon, domain, tmp_path
):
    images = domain.images()
    others = [define(daemon, f"e2e-z-later-{n}", [DiskSpec("vda", "raw")]) for n in range(3)]
    try:
        hosts = [domain.name, *(other.name for other in others)]
        config = write_config(tmp_path, daemon.uri, hosts, **SLOW)
        config.write_text(config.read_text().replace("threads: 2", "threads: 1"))
        with on_terminal([PROGRAM, "-c", config, "backup"]) as terminal:
            terminal.wait_for(" left")
            terminal.interrupt()
            code = terminal.end()
    finally:
        for other in others:
            other.undefine()
    assert code == ENDED_BY["SIGINT"]
    # The report is folded to the width of the terminal.
    ending = " ".join(terminal.said[terminal.said.rindex("interrupted: ") :].split())
    assert ending.startswith(
        f"interrupted: {domain.name} (undone, guests on their own disks); "
        "not started: e2e-z-later-0, e2e-z-later-1, e2e-z-later-2 "
    )
    assert "0 backups done, 0 failed, 1 interrupted" in ending
    assert "0 B read" not in ending
    assert "\x1b[?25h" in terminal.said, "the cursor is back"
    assert at_home(domain, images)


def test_after_sigkill_the_next_backup_cleans_up(daemon, domain, tmp_path):
    images = domain.images()
    config = write_config(tmp_path, daemon.uri, [domain.name], **SLOW)
    process = start_copying(config)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    domain.qemu_io("vda", "write -P 4 50M 1M")
    assert domain.state() == "running"
    assert not at_home(domain, images)
    assert virtbackup("-c", config, "list", "--json").stdout.count('"event":"backup"') == 0

    fast = write_config(tmp_path, daemon.uri, [domain.name], packager="directory")
    done = virtbackup("-c", fast, "backup")

    assert done.returncode == 0, done.stderr
    assert at_home(domain, images)
    restored = virtbackup("-c", fast, "restore", "all", domain.name, tmp_path / "restored")
    assert restored.returncode == 0, restored.stderr
    image = images["vda"]
    assert filecmp.cmp(image, tmp_path / "restored" / image.name, shallow=False)
    assert image.read_bytes()[50 * MIB : 51 * MIB] == b"\x04" * MIB
    kept = [path for path in files(tmp_path / "target") if not path.name.startswith(".")]
    assert len(kept) == 2
