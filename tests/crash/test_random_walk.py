"""Whatever is done to a domain, each backup of it restores what its disks held when it began."""

import pytest
import yaml

from faults.walk import Walk
from lab.disks import MIB, DiskSpec
from lab.domains import define

STEPS = 30
DISKS = (
    DiskSpec("vda", size_bytes=8 * MIB, fs=None),
    DiskSpec("vdb", "raw", size_bytes=6 * MIB, fs=None),
)


@pytest.fixture
def domain(daemon_of_the_run):
    """It runs; whether its guest has booted matters only to what is done in the guest."""
    daemon_of_the_run.ensure_started()
    domain = define(daemon_of_the_run, "walked", DISKS)
    try:
        domain.start()
        yield domain
    finally:
        daemon_of_the_run.ensure_started()
        domain.undefine()


def test_every_backup_is_what_the_disks_held(domain, walk_seed, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    group = {
        "target": str(target), "autostart": True, "hosts": [domain.name], "method": "pull",
        "packager": "repository", "audit_percent": 0,
    }  # fmt: skip
    config = tmp_path / "config.yml"
    config.write_text(yaml.safe_dump({"uri": domain.root.uri, "groups": {"all": group}}))
    Walk(domain, tmp_path, config, walk_seed).go(STEPS)
