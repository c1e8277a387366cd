"""The public door on a real guest: the first example of the guide, and a domain of a backup."""

import re
import subprocess
import sys

import yaml
from anyio import fail_after, to_thread

from lab.disks import DiskSpec
from library_examples import EXAMPLES, placed
from virtbackup_async import open_virtbackup


def write_config(path, daemon, domain):
    group = {"target": str(path / "target"), "hosts": [domain.name], "packager": "directory"}
    config = path / "config.yml"
    config.write_text(yaml.safe_dump({"uri": daemon.uri, "groups": {"production": group}}))
    return config


def run_example(config):
    program = placed(EXAMPLES["Back up"], config, config.parent)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100
    )


async def test_the_first_example_backs_up_and_its_backup_becomes_a_domain(
    daemon, make_domain, tmp_path
):
    domain = make_domain(DiskSpec("vda"), boot=False)
    config = write_config(tmp_path, daemon, domain)
    (tmp_path / "target").mkdir()
    run = await to_thread.run_sync(run_example, config)
    assert run.stderr == ""
    made = re.fullmatch(rf"{domain.name}: backup (\S+), 0 disks missing\n", run.stdout)
    assert made, run.stdout
    with fail_after(100):
        async with open_virtbackup(config) as vb:
            found = await vb.find("production", domain.name)
            assert found.definition.name == made[1]
            restored = await vb.restore_domain(found, tmp_path / "twin", name="twin")
    try:
        assert restored.domain.domain == "twin"
        assert restored.files.verified
        state = await to_thread.run_sync(daemon.virsh, "domstate", "twin")
        assert state.strip() == "shut off"
    finally:
        await to_thread.run_sync(daemon.virsh, "undefine", "twin")
