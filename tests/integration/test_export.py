"""``export`` as typed: a disk on a chain, out of every kind of package, becomes one image."""

import shutil
import subprocess

import pytest

from e2e.command import events, start, virtbackup, write_config
from lab.disks import DiskSpec


@pytest.mark.parametrize("packager", ["tar", "repository"])
def test_a_chain_becomes_one_image(daemon, make_domain, tmp_path, packager):
    domain = make_domain(DiskSpec("vda", backing=1), boot=False)
    config = write_config(tmp_path, daemon.uri, [domain.name], packager=packager)
    done = virtbackup("-c", config, "backup")
    assert done.returncode == 0, done.stderr
    output = tmp_path / "vda.raw"
    words = ("export", "all", domain.name, "vda", output, "--format", "raw")
    exported = virtbackup("-c", config, *words, "--json")
    assert exported.returncode == 0, exported.stderr
    *_, event, _summary = events(exported.stdout)
    assert (event["event"], event["output"]) == ("disk_exported", str(output))
    image = domain.images()["vda"]
    compare = ["qemu-img", "compare", "-U", "-f", "qcow2", "-F", "raw", image, output]
    subprocess.run(compare, check=True, capture_output=True)
    assert virtbackup("-c", config, *words).returncode == 22, "it is there already"
    # The same through a pipe, as qcow2: the chain is taken apart and the image wrapped anew.
    with (tmp_path / "piped").open("wb") as piped:
        process = start("-c", config, *words[:4], "-", stdout=subprocess.PIPE, text=False)
        shutil.copyfileobj(process.stdout, piped)
        assert process.wait(timeout=120) == 0, process.stderr.read()
        process.stdout.close()
        process.stderr.close()
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", output, tmp_path / "piped"]
    subprocess.run(compare, check=True, capture_output=True)
