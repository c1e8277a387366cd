"""Whatever is done to a domain, each backup of it restores what its disks held when it began."""

import pytest
import yaml

from faults.walk import Walk
from lab.disks import MIB, DiskSpec
from lab.domains import running

STEPS = 30
DISKS = (
    DiskSpec("vda", size_bytes=8 * MIB, fs=None),
    DiskSpec("vdb", "raw", size_bytes=6 * MIB, fs=None),
)


@pytest.fixture(scope="module")
def domain(daemon_of_the_run):
    daemon_of_the_run.ensure_started()
    with running(daemon_of_the_run, "walked", DISKS) as domain:
        yield domain


def test_every_backup_is_what_the_disks_held(domain, walk_seed, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    group = {
        "target": str(target), "autostart": True, "hosts": [domain.name], "method": "pull",
        "packager": "repository",
    }  # fmt: skip
    config = tmp_path / "config.yml"
    config.write_text(yaml.safe_dump({"uri": domain.root.uri, "groups": {"all": group}}))
    Walk(domain, tmp_path, config, walk_seed).go(STEPS)
