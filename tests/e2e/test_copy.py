"""Copies of a real guest's backups: when the first target is gone, the other one has everything."""

import filecmp
import shutil

import pytest
from command import events, virtbackup, write_config

from lab.disks import DiskSpec


@pytest.fixture
def domain(make_domain):
    return make_domain(DiskSpec("vda"), DiskSpec("vdb", "raw", fs=None))


def succeed(*words):
    done = virtbackup(*words)
    assert done.returncode == 0, done.stderr
    return done


def listed(target):
    lines = events(succeed("list", "--target", target, "--json").stdout)
    return [line["backup"] for line in lines if line["event"] == "backup"]


def assert_same(one, other):
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        assert filecmp.cmp(one / name, other / name, shallow=False), name


def change(domain, pattern):
    domain.guest_exec(f"echo {pattern} > /mnt/vda/file; sync")
    domain.qemu_io("vdb", f"write -P {pattern} 1M 256k")
    domain.qemu_io("vdb", "flush")


@pytest.mark.parametrize("packager", ["repository", "directory"])
def test_the_first_target_may_be_lost(daemon, domain, tmp_path, packager):
    other, home = tmp_path / "other", tmp_path / "home"
    other.mkdir()
    home.mkdir()
    config = write_config(
        tmp_path, daemon.uri, [domain.name], packager=packager, copies=[str(other)]
    )
    change(domain, 5)
    succeed("-c", config, "backup")
    change(domain, 9)
    second = events(succeed("-c", config, "backup", "--json").stdout)
    (copied,) = (line for line in second if line["event"] == "copy_done")
    assert copied["read_bytes"] + copied["skipped_bytes"] == copied["data_bytes"]
    if packager == "repository":
        assert copied["skipped_bytes"] > 0
    backups = listed(other)
    assert len(backups) == 2

    for backup in backups:
        succeed("-c", config, "restore", domain.name, tmp_path / f"was-{backup}", "--date", backup)
    shutil.rmtree(tmp_path / "target")
    for backup in backups:
        place = tmp_path / f"is-{backup}"
        succeed("restore", "--target", other, domain.name, place, "--date", backup)
        assert_same(tmp_path / f"was-{backup}", place)
    raw = next((tmp_path / f"is-{backups[-1]}").glob("*vdb*.raw"))
    assert filecmp.cmp(raw, domain.image("vdb"), shallow=False)
    assert "2 good" in succeed("verify", "--target", other).stdout

    done = succeed("copy", "--target", other, "--to", home, "--packager", "tar")
    assert "2 backups copied" in done.stdout
    assert listed(home) == backups
    assert "2 good" in succeed("verify", "--target", home).stdout
    again = succeed("copy", "--target", other, "--to", home, "--packager", "tar")
    assert "2 skipped" in again.stdout


def test_a_dry_run_and_errors_are_in_words(daemon, domain, tmp_path):
    config = write_config(tmp_path, daemon.uri, [domain.name], packager="zstd")
    succeed("-c", config, "backup")
    missing = virtbackup("-c", config, "copy", "--to", tmp_path / "missing")
    assert missing.returncode == 22
    assert "missing" in missing.stderr
    (tmp_path / "other").mkdir()
    planned = succeed("-c", config, "copy", "--to", tmp_path / "other", "--dry-run")
    assert "1 backup would be copied" in planned.stdout
    assert not list((tmp_path / "other").iterdir())
    same = virtbackup("-c", config, "copy", "--to", tmp_path / "target")
    assert same.returncode == 2
    (package,) = (tmp_path / "target" / domain.name).glob("*_vda.*.zstd")
    data = bytearray(package.read_bytes())
    data[len(data) // 2] ^= 1
    package.write_bytes(data)
    damaged = virtbackup("-c", config, "copy", "--to", tmp_path / "other")
    assert damaged.returncode == 13
    assert listed_or_none(tmp_path / "other") == []


def listed_or_none(target):
    done = virtbackup("list", "--target", target, "--json")
    return [line["backup"] for line in events(done.stdout) if line["event"] == "backup"]
