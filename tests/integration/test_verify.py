"""``verify`` as typed, on backups of a real domain by every packager, damaged on disk."""

import os

import pytest

from e2e.command import events, virtbackup, write_config
from lab.disks import DiskSpec

PACKAGERS = {
    "directory": {"packager": "directory"},
    "tar": {"packager": "tar"},
    "tar.gz": {"packager": "tar", "packager_opts": {"compression": "gz"}},
    "tar.xz": {"packager": "tar", "packager_opts": {"compression": "xz", "compression_lvl": 1}},
    "zstd": {"packager": "zstd"},
    "repository": {"packager": "repository"},
}


@pytest.fixture
def domain(make_domain):
    domain = make_domain(DiskSpec("vda", backing=1), DiskSpec("vdb", "raw", fs=None), boot=False)
    with domain.images()["vdb"].open("r+b") as image:
        image.write(os.urandom(3 << 20))
    return domain


def largest(target):
    files = [path for path in target.rglob("*") if path.is_file() and path.suffix != ".json"]
    return max(files, key=lambda path: path.stat().st_blocks)


def flip(path):
    with path.open("r+b") as file:
        file.seek(1 << 20)
        (byte,) = file.read(1)
        file.seek(1 << 20)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("packager", PACKAGERS)
def test_good_then_flipped_then_truncated(daemon, domain, tmp_path, packager):
    config = write_config(tmp_path, daemon.uri, [domain.name], **PACKAGERS[packager])
    done = virtbackup("-c", config, "backup")
    assert done.returncode == 0, done.stderr

    good = virtbackup("-c", config, "verify", "--json")
    assert good.returncode == 0, good.stderr
    *said, summary = events(good.stdout)
    (verified,) = [event for event in said if event["event"] == "verify_done"]
    assert verified["digests"]
    assert summary["done"] == [verified["backup"]]
    (_, listed, *_) = events(virtbackup("-c", config, "list", "--json").stdout)
    assert listed["verified"] is True

    package = largest(tmp_path / "target")
    whole = package.read_bytes()
    flip(package)
    bad = virtbackup("-c", config, "verify", "all")
    assert bad.returncode == 13
    assert "FAILED" in bad.stdout
    assert "damaged" in virtbackup("-c", config, "list").stdout

    package.write_bytes(whole)
    os.truncate(package, len(whole) // 2)
    assert virtbackup("-c", config, "verify", "-D", domain.name).returncode == 13

    package.write_bytes(whole)
    assert virtbackup("-c", config, "verify", "--not-verified-since", "1d").returncode == 0
    (_, listed, *_) = events(virtbackup("-c", config, "list", "--json").stdout)
    assert listed["verified"] is True


def test_unknown_group_and_what_cannot_be_understood(tmp_path):
    config = write_config(tmp_path, "test:///default", ["x"])
    assert virtbackup("-c", config, "verify", "nope").returncode == 12
    wrong = virtbackup("-c", config, "verify", "--newer-than", "soon", "--json")
    assert wrong.returncode == 2
    assert events(wrong.stdout)[-1]["exit_code"] == 2
