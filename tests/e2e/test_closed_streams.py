"""A backup that is started with its standard streams closed, as some services are."""

import subprocess

import pytest
from command import PROGRAM, events, virtbackup, write_config

from lab.disks import DiskSpec
from lab.domains import define


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_running_domain_is_backed_up_and_restored(daemon, tmp_path, closed):
    """libvirt's library, QEMU's tools and images all get descriptors of their own."""
    domain = define(daemon, "e2e-closed", [DiskSpec("vda", "raw", fs=None)], agent=False)
    try:
        domain.start()
        domain.qemu_io("vda", "write -P 7 1M 1M")
        config = write_config(tmp_path, daemon.uri, [domain.name], packager="zstd")
        for words in (["backup"], ["restore", "all", domain.name, str(tmp_path / "restored")]):
            command = ["sh", "-c", f'exec "$@" {closed}', "sh", PROGRAM, "-c", config, *words]
            assert subprocess.run(command, timeout=60, check=False).returncode == 0
        image = domain.images()["vda"]
    finally:
        domain.undefine()
    listed = [event["event"] for event in events(virtbackup("-c", config, "list", "--json").stdout)]
    assert listed.count("backup") == 1
    restored = tmp_path / "restored" / image.name
    assert restored.read_bytes()[1 << 20 : 2 << 20] == b"\x07" * (1 << 20)
