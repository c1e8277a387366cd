"""Encrypted backups of a real guest: night after night, and when only target and paper are left."""

import filecmp
import re
import shutil
import subprocess

import pytest
from command import PROGRAM, events, virtbackup, write_config

from lab.disks import DiskSpec


@pytest.fixture
def domain(make_domain):
    return make_domain(DiskSpec("vda"), DiskSpec("vdb", "raw", fs=None))


def succeed(*words, typed=""):
    done = subprocess.run(
        [PROGRAM, *map(str, words)], input=typed, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def change(domain, pattern):
    domain.guest_exec(f"echo {pattern} > /mnt/vda/file; sync")
    domain.qemu_io("vdb", f"write -P {pattern} 1M 256k")
    domain.qemu_io("vdb", "flush")


def test_a_guest_is_backed_up_encrypted_and_comes_back_by_paper(daemon, domain, tmp_path):
    key_file, target = tmp_path / "backups.key", tmp_path / "target"
    config = write_config(
        tmp_path,
        daemon.uri,
        [domain.name],
        packager="repository",
        encryption={"key_file": str(key_file)},
    )
    change(domain, 5)
    first = virtbackup("-c", config, "backup")
    assert first.returncode == 0, first.stderr
    assert "virtbackup key paper all" in first.stdout + first.stderr
    change(domain, 9)
    second = events(succeed("-c", config, "backup", "--json").stdout)
    (vda,) = (e for e in second if e["event"] == "disk_done" and e["disk"] == "vda")
    assert vda["base"] is not None, vda["reason"]
    assert not any(line["event"] == "warned" for line in second)
    names = "\n".join(str(path.relative_to(target)) for path in target.rglob("*"))
    assert domain.name not in names
    assert "2 good" in succeed("-c", config, "verify").stdout
    sheet = succeed("-c", config, "key", "paper").stdout
    for command in ("doctor", "stats", "status", "show"):
        words = (domain.name,) if command == "show" else ()
        assert virtbackup("-c", config, command, *words).returncode in {0, 3}, command
    succeed("-c", config, "clean")

    # The host is gone, and its key file with it.
    shutil.copy(domain.image("vdb"), tmp_path / "as-it-was")
    key_file.unlink()
    refused = virtbackup("-c", config, "backup")
    assert refused.returncode == 2
    assert "missing key file" in refused.stderr
    letters = "-".join(re.findall(r"^    ([A-Z2-7]{4}(?:-[A-Z2-7]{4})+)$", sheet, re.MULTILINE))
    new = tmp_path / "new.key"
    succeed("key", "add", "--target", target, "--recovery", "--new-key-file", new, typed=letters)
    place = tmp_path / "restored"
    succeed("restore", "--target", target, "--key-file", new, domain.name, place)
    (raw,) = place.glob("*vdb*.raw")
    assert filecmp.cmp(raw, tmp_path / "as-it-was", shallow=False)
    assert "packs read" in succeed("verify", "--without-key", "--target", target).stdout
    exported = tmp_path / "vdb.raw"
    succeed("export", "--target", target, "--key-file", new, domain.name, "vdb", exported)
    assert filecmp.cmp(exported, raw, shallow=False)
