"""The example configurations of virt-backup, as they are but for the libvirt, on a real one.

Their target is `/mnt/kvm/backups`: the command runs in a mount namespace of its own, where `/mnt`
is a temporary directory. Their patterns stay too: the lab's domains have the names that they match,
and some that they do not. Only `qemu:///system` cannot stay: the lab's daemon is one of a session.
"""

import os
import subprocess
from pathlib import Path

import pytest
from command import PROGRAM, events

from lab.disks import MIB, DiskSpec
from lab.domains import define

SAMPLES = Path(__file__).parents[1] / "compat/data/config"
DISKS = [DiskSpec(dev, "raw", size_bytes=MIB, fs=None) for dev in ("vda", "vdb", "vdc")]
BACKED_UP = {
    "domainname": ["vda", "vdb"],
    "domainname2": ["vda", "vdb", "vdc"],
    "prod-1": ["vda", "vdb", "vdc"],
}
LEFT_OUT = ("domainname3", "testing", "other")
SYSTEM = 'uri: "qemu:///system"'

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")


@pytest.fixture
def domains(daemon):
    defined = {name: define(daemon, name, DISKS, agent=False) for name in (*BACKED_UP, *LEFT_OUT)}
    for domain in defined.values():
        for image in domain.images().values():
            with image.open("r+b") as file:
                file.write(os.urandom(1000))
    yield defined
    for domain in defined.values():
        domain.undefine()


@pytest.fixture
def virtbackup(daemon, tmp_path):
    """Returns a function that runs the command where the example's places are ours."""
    (tmp_path / "kvm/backups").mkdir(parents=True)

    def run(sample, *words):
        text = (SAMPLES / sample).read_text()
        assert text.count(SYSTEM) == 1
        config = tmp_path / sample
        config.write_text(text.replace(SYSTEM, f'uri: "{daemon.uri}"'))
        inside = ["unshare", "--mount", "sh", "-ec", 'mount --bind "$1" /mnt; shift; exec "$@"']
        argv = [*inside, "sh", tmp_path, PROGRAM, "-c", config, *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.mark.parametrize("sample", ["0.1-example.yml", "0.4.yml", "0.5.6-example.yml"])
def test_example_backs_up_lists_and_restores(domains, virtbackup, tmp_path, sample):
    domains["prod-1"].start()
    done = virtbackup(sample, "backup", "--json")
    assert done.returncode == 0, done.stderr
    made = {
        event["domain"]: event for event in events(done.stdout) if event["event"] == "backup_done"
    }
    assert made.keys() == BACKED_UP.keys()

    listed = events(virtbackup(sample, "list", "test", "--json").stdout)
    backups = {event["domain"]: event for event in listed if event["event"] == "backup"}
    assert {domain: event["disks"] for domain, event in backups.items()} == BACKED_UP
    assert {event["packager"] for event in backups.values()} == {"tar"}
    assert list((tmp_path / "kvm/backups/domainname").glob("*.tar.xz"))

    restored = virtbackup(sample, "restore", "test", "domainname", "/mnt/restored")
    assert restored.returncode == 0, restored.stderr
    for dev in BACKED_UP["domainname"]:
        image = domains["domainname"].image(dev)
        assert (tmp_path / "restored" / image.name).read_bytes() == image.read_bytes()
