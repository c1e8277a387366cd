import subprocess

import pytest

from virtbackup_async.qemu.qcow2 import HEAD_BYTES, read_head


def image(path, *options):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, "1M"], check=True)
    return path


def head_of(path):
    return read_head(path.read_bytes()[:HEAD_BYTES])


@pytest.mark.parametrize(("compat", "version"), [("0.10", 2), ("1.1", 3)])
def test_the_version(tmp_path, compat, version):
    assert head_of(image(tmp_path / "image", "-o", f"compat={compat}")).version == version


def test_what_a_header_says_of_other_files(tmp_path):
    plain = image(tmp_path / "plain")
    above = image(tmp_path / "above", "-F", "qcow2", "-b", plain)
    apart = image(tmp_path / "apart", "-o", f"data_file={tmp_path / 'data'}")
    assert not head_of(plain).has_backing
    assert head_of(above).has_backing
    assert head_of(plain).data_file is None
    assert head_of(apart).data_file == str(tmp_path / "data")


def test_internal_snapshots_are_counted(tmp_path):
    path = image(tmp_path / "image")
    assert head_of(path).snapshots == 0
    for name in ("one", "two"):
        subprocess.run(["qemu-img", "snapshot", "-c", name, path], check=True)
    assert head_of(path).snapshots == 2


@pytest.mark.parametrize("head", [b"", b"QFI\xfb", bytes(512)])
def test_what_is_no_qcow2(head):
    assert read_head(head) is None
