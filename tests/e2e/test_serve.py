"""``serve`` in a process of its own, with nbdcopy and qemu-img as its clients."""

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest
import yaml
from command import events, read_until, start, virtbackup

from fakes.stored_backup import MIB, StoredBackup
from virtbackup_async.model.backup import Packager

OTHERS = ("directory", "tar", "zstd")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.write(random.Random(9).randbytes(3 * MIB))
        file.truncate(40 * MIB)
    return path


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yml"
    group = {"target": str(tmp_path / "target"), "hosts": ["web"], "daily": 0, "hourly": 1}
    path.write_text(yaml.safe_dump({"groups": {"main": group}}))
    return path


def serve(config, *words):
    """Start the command; return the process, and its disks when it serves."""
    process = start("-c", config, "serve", "web", "--json", *words)
    return process, read_until(process, "backup_served")[-1]["disks"]


def stop(process, number=signal.SIGTERM):
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, events(out), err


def copied(uri, path):
    subprocess.run(["nbdcopy", uri, path], check=True, capture_output=True, timeout=60)
    return Path(path).read_bytes()


@pytest.mark.parametrize("packager", ["repository", *OTHERS])
async def test_nbdcopy_reads_the_disk_until_the_command_is_stopped(
    tmp_path, image, config, packager
):
    await StoredBackup(tmp_path / "target", Packager(packager)).make(image)
    process, (disk,) = serve(config)
    try:
        assert disk["size_bytes"] == 40 * MIB
        assert copied(disk["uri"], tmp_path / "copy") == image.read_bytes()
        socket = Path(disk["uri"].partition("?socket=")[2])
        assert socket.exists()
    finally:
        code, said, err = stop(process)
    assert (code, err) == (0, "")
    assert said[-1]["event"] == "summary"
    assert said[-1]["ok"]
    assert not socket.parent.exists()


async def test_ctrl_c_is_its_normal_end_and_hanging_up_none(tmp_path, image, config):
    await StoredBackup(tmp_path / "target", Packager("repository")).make(image)
    process, (disk,) = serve(config)
    process.send_signal(signal.SIGHUP)
    try:
        assert copied(disk["uri"], tmp_path / "copy") == image.read_bytes()
    finally:
        code, _, _ = stop(process, signal.SIGINT)
    assert code == 0


async def test_a_killed_process_leaves_nothing_for_the_next_one(tmp_path, image, config):
    backup = await StoredBackup(tmp_path / "target", Packager("directory")).make(image)
    process, (disk,) = serve(config)
    socket = Path(disk["uri"].partition("?socket=")[2])
    forget = ("-c", config, "forget", f"web@{backup.name}", "--allow-newest")
    held = virtbackup(*forget)
    process.kill()
    process.communicate(timeout=60)
    assert "0 backups removed" in held.stdout
    assert backup.path.exists()
    assert socket.exists()
    process, _ = serve(config)
    stop(process)
    assert not socket.parent.exists()
    assert "1 backup removed" in virtbackup(*forget).stdout


async def test_damage_is_named_and_the_rest_is_read(tmp_path, image, config):
    backup = await StoredBackup(tmp_path / "target", Packager("repository")).make(image)
    (pack,) = backup.directory.parent.rglob("*.pack")
    os.truncate(pack, pack.stat().st_size // 2)
    process, (disk,) = serve(config)
    try:
        first, last = ["-c", "read 0 64k"], ["-c", f"read {3 * MIB - 65536} 64k"]
        words = ["qemu-io", "-r", "-f", "raw", *first, *last, disk["uri"]]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    finally:
        code, said, _ = stop(process)
    assert "read 65536/65536 bytes at offset 0" in done.stdout
    assert "read failed: Input/output error" in done.stdout + done.stderr
    assert code == 0
    lost = [event for event in said if event["event"] == "range_unreadable"]
    assert {(event["disk"], event["code"]) for event in lost} == {("vda", "corrupt")}
    assert lost[0]["offset"] >= 2 * MIB


async def test_people_get_addresses_and_commands(tmp_path, image, config):
    await StoredBackup(tmp_path / "target", Packager("directory")).make(image)
    process = start("-c", config, "serve", "web")
    try:
        lines = []
        while not lines or not lines[-1].startswith("guestfish"):
            lines.append(process.stdout.readline())
        assert lines[0].startswith("web: serving ")
    finally:
        code, _, err = process_end(process)
    assert code == 0, err
    assert any(line.startswith("nbdcopy 'nbd+unix:///vda?socket=") for line in lines)
    assert "virtbackup verify" in "".join(lines)


def process_end(process):
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(
    "words", [["--listen", "::1"], ["--tls", "/etc"], ["--listen", ":x", "--tls", "/etc"]]
)
def test_wrong_words_are_usage_errors(config, words):
    done = virtbackup("-c", config, "serve", "web", *words)
    assert done.returncode == 2, done.stderr


def qemu_io(uri, *commands):
    words = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-f", "raw", *words, uri],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout + done.stderr


async def test_what_was_flushed_is_there_after_a_kill(tmp_path, image, config):
    await StoredBackup(tmp_path / "target", Packager("repository")).make(image)
    packs = {path: path.read_bytes() for path in (tmp_path / "target").rglob("*.pack")}
    expected = bytearray(image.read_bytes())
    overlay = tmp_path / "web.overlay"
    for number in range(1, 4):
        process, (disk,) = serve(config, "--overlay", overlay)
        assert disk["writable"]
        try:
            said = qemu_io(disk["uri"], f"write -P {number} {number}M 70000", "flush")
            said += qemu_io(disk["uri"], f"write -z {20 + number}k 100k", "flush")
        finally:
            process.kill()
            process.communicate(timeout=60)
        assert "failed" not in said
        expected[number * MIB : number * MIB + 70000] = bytes([number]) * 70000
        start = (20 + number) << 10
        expected[start : start + (100 << 10)] = bytes(100 << 10)
    process, (disk,) = serve(config, "--overlay", overlay)
    try:
        assert copied(disk["uri"], tmp_path / "copy") == expected
    finally:
        code, _, err = stop(process)
    assert (code, err) == (0, "")
    assert packs == {path: path.read_bytes() for path in packs}
    assert overlay.stat().st_blocks * 512 < 2 * MIB
