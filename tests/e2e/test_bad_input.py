"""What bad input gets: one clear line on stderr, the documented exit code, nothing half-made."""

import json
import os
import subprocess

import pytest
import yaml
from command import events, virtbackup, write_config

from lab.disks import DiskSpec
from lab.domains import define

NOBODY = "qemu+unix:///session?socket=/nonexistent/libvirt-sock"


@pytest.fixture
def shut_off(daemon):
    domain = define(daemon, "e2e-shut-off", [DiskSpec("vda", "raw", fs=None)], agent=False)
    yield domain
    domain.undefine()


def assert_one_line(done, exit_code, *words):
    assert done.returncode == exit_code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("virtbackup: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


def test_no_configuration(tmp_path):
    assert_one_line(virtbackup("-c", tmp_path / "none.yml", "backup"), 2, "none.yml")


def test_broken_yaml_is_named_with_its_line(tmp_path):
    config = tmp_path / "config.yml"
    config.write_text("groups:\n  all:\n    target: [/x\n")
    assert_one_line(virtbackup("-c", config, "list"), 2, "config.yml", ":4")


def test_a_wrong_value_is_named_with_line_and_key(tmp_path):
    config = tmp_path / "config.yml"
    config.write_text("threads: many\ngroups: {}\n")
    assert_one_line(virtbackup("-c", config, "list"), 2, "config.yml:1", "threads", "many")


def test_an_unknown_key_warns_with_the_nearest_known_one(tmp_path):
    config = write_config(tmp_path, NOBODY, ["x"], packger="tar")
    done = virtbackup("-c", config, "list")
    assert done.returncode == 0
    assert "packger" in done.stderr
    assert "packager" in done.stderr


def test_libvirt_that_does_not_answer(tmp_path):
    config = write_config(tmp_path, NOBODY, ["x"])
    assert_one_line(virtbackup("-c", config, "backup"), 10, "/nonexistent/libvirt-sock")
    done = virtbackup("-c", config, "backup", "--json")
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["event"] == "summary"
    assert summary["exit_code"] == done.returncode == 10
    assert "/nonexistent" in summary["error"]


def test_an_unknown_group(daemon, tmp_path):
    config = write_config(tmp_path, daemon.uri, ["x"])
    for command in (["backup", "al"], ["list", "al"], ["restore", "al", "x", tmp_path / "r"]):
        assert_one_line(virtbackup("-c", config, *command), 12, "al", "all")
    assert not (tmp_path / "r").exists()


def test_an_unknown_domain_fails_the_run_but_not_the_others(daemon, shut_off, tmp_path):
    config = write_config(tmp_path, daemon.uri, ["nobody", shut_off.name])
    done = virtbackup("-c", config, "backup", "--json")
    said = events(done.stdout)
    assert done.returncode == 3
    assert [e["domain"] for e in said if e["event"] == "backup_failed"] == ["nobody"]
    assert [e["domain"] for e in said if e["event"] == "backup_done"] == [shut_off.name]
    last = said[-1]
    assert (last["event"], last["ok"], last["exit_code"]) == ("summary", False, 3)
    assert (last["done"], last["failed"]) == ([shut_off.name], ["nobody"])


def test_restoring_what_is_not_there(daemon, tmp_path):
    config = write_config(tmp_path, daemon.uri, ["x"])
    restore = ("-c", config, "restore", "all", "web", tmp_path / "r")
    assert_one_line(virtbackup(*restore), 12, "web")
    assert not (tmp_path / "r").exists()


def test_restore_never_overwrites(daemon, shut_off, tmp_path):
    config = write_config(tmp_path, daemon.uri, [shut_off.name], packager="directory")
    assert virtbackup("-c", config, "backup").returncode == 0
    restored = tmp_path / "restored"
    restored.mkdir()
    there = restored / shut_off.images()["vda"].name
    there.write_text("precious")
    done = virtbackup("-c", config, "restore", "all", shut_off.name, restored)
    assert_one_line(done, 22, there.name)
    assert there.read_text() == "precious"
    assert list(restored.iterdir()) == [there]


def test_a_damaged_backup_is_not_restored(daemon, shut_off, tmp_path):
    with shut_off.images()["vda"].open("r+b") as image:
        image.write(os.urandom(1 << 20))
    config = write_config(tmp_path, daemon.uri, [shut_off.name], packager="directory")
    assert virtbackup("-c", config, "backup").returncode == 0
    (copy,) = (tmp_path / "target").rglob("*_vda.raw")
    with copy.open("r+b") as file:
        file.seek(5000)
        file.write(b"flipped")
    done = virtbackup("-c", config, "restore", "all", shut_off.name, tmp_path / "r")
    assert_one_line(done, 13, "is damaged")
    assert list((tmp_path / "r").glob("*")) == []


def test_a_target_that_cannot_be_written(daemon, shut_off, tmp_path):
    mount = tmp_path / "readonly"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", mount], check=True)
    try:
        config = write_config(tmp_path, daemon.uri, [shut_off.name], target=mount)
        done = virtbackup("-c", config, "backup", "--json")
    finally:
        subprocess.run(["umount", mount], check=True)
    (failed,) = [event for event in events(done.stdout) if event["event"] == "backup_failed"]
    assert (done.returncode, failed["exit_code"]) == (3, 22)
    assert "Read-only" in failed["error"]


# libvirt itself refuses a slash in a name; the catalog's own tests have "../x".
@pytest.mark.parametrize(
    "name", ["a name with spaces", "Straße-💾", "n" * 200, "-rf", "...", ".hidden", "a%2Fb"]
)
@pytest.mark.parametrize("packager", ["directory", "zstd"])
def test_hostile_domain_names(daemon, name, packager, tmp_path, state_directory):
    domain = define(daemon, name, [DiskSpec("vda", "raw", fs=None)], agent=False)
    try:
        with domain.images()["vda"].open("r+b") as image:
            image.write(b"content")
        config = write_config(tmp_path, daemon.uri, [f"r:^{'.' * len(name)}$"], packager=packager)
        settings = yaml.safe_load(config.read_text())
        settings["groups"]["all"]["hosts"] = [name]
        config.write_text(yaml.safe_dump(settings))
        assert virtbackup("-c", config, "backup").returncode == 0
        listed = events(virtbackup("-c", config, "list", "--json").stdout)
        assert [event["domain"] for event in listed if event["event"] == "backup"] == [name]
        words = ("-c", config, "restore", "--", "all", name, tmp_path / "r")
        done = virtbackup(*words)
        assert done.returncode == 0, done.stderr
        restored = tmp_path / "r" / domain.images()["vda"].name
        assert restored.read_bytes() == domain.images()["vda"].read_bytes()
    finally:
        daemon.virsh("undefine", "--domain", daemon.virsh("list", "--all", "--uuid").split()[0])
    outside = {path.name for path in tmp_path.iterdir()}
    assert outside == {"config.yml", "target", "r", state_directory.name}
