"""A real guest, backed up into a bucket by the installed command, and back out of it."""

import filecmp
import os
import signal
from pathlib import Path

import pytest
import yaml
from command import events, read_until, start, virtbackup

from lab.disks import DiskSpec
from object_stores import new_location


@pytest.fixture
def domain(make_domain):
    return make_domain(DiskSpec("vda"), DiskSpec("vdb", "raw", fs=None))


@pytest.fixture(params=["clear", "encrypted"])
def config(request, daemon, domain, tmp_path, object_server):
    location = new_location(object_server.endpoint)
    group = {
        "target": {"url": str(location), "endpoint": location.endpoint, "region": "us-east-1"},
        "packager": "repository",
        "autostart": True,
        "hosts": [domain.name],
        **dict.fromkeys(("hourly", "daily", "weekly", "monthly", "yearly"), 0),
    }
    if request.param == "encrypted":
        group["encryption"] = {"key_file": str(tmp_path / "key")}
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump({"uri": daemon.uri, "groups": {"all": group}}))
    path.chmod(0o600)
    return path


def succeed(*words):
    done = virtbackup(*words)
    assert done.returncode == 0, done.stderr
    return done


def told(config, *words):
    return events(succeed("-c", config, *words, "--json").stdout)


def left_on_the_host():
    state = Path(os.environ["VIRTBACKUP_STATE_DIRECTORY"])
    return [path for path in (state / "pending").rglob("*") if path.is_file()]


def test_a_guest_is_backed_up_into_a_bucket_and_restored(config, domain, tmp_path):
    domain.qemu_io("vdb", "write -P 5 1M 256k")
    told(config, "backup")
    domain.qemu_io("vdb", "write -P 9 4M 256k")
    domain.qemu_io("vdb", "flush")
    again = told(config, "backup")
    done = [line for line in again if line["event"] == "backup_done"]
    assert [line["domain"] for line in done] == [domain.name]
    listed = [line["backup"] for line in told(config, "list") if line["event"] == "backup"]
    assert len(listed) == 2
    assert "2 good" in succeed("-c", config, "verify").stdout

    place = tmp_path / "restored"
    succeed("-c", config, "restore", domain.name, place)
    (raw,) = place.glob("*vdb*.raw")
    assert filecmp.cmp(raw, domain.image("vdb"), shallow=False)

    succeed("-c", config, "clean")
    left = [line["backup"] for line in told(config, "list") if line["event"] == "backup"]
    assert left == listed[1:]
    assert [line for line in told(config, "log") if line["event"] == "past_run"]
    assert left_on_the_host() == []


@pytest.mark.parametrize("config", ["clear"], indirect=True)
def test_a_killed_backup_is_undone_by_its_host(config, domain):
    process = start("-c", config, "backup", "--json")
    read_until(process, "phase", phase="copying")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(left_on_the_host()) == 1
    done = told(config, "clean", "-b")
    assert [line["domain"] for line in done if line["event"] == "pending_undone"] == [domain.name]
    assert left_on_the_host() == []
    assert not [line for line in told(config, "list") if line["event"] == "backup"]
    told(config, "backup")
    assert "1 good" in succeed("-c", config, "verify").stdout
