import subprocess

import pytest

from virtbackup_async.images.qcow2 import HEAD_BYTES, keeps_bitmaps


@pytest.mark.parametrize(("options", "expected"), [("compat=0.10", False), ("compat=1.1", True)])
def test_which_versions_keep_bitmaps(tmp_path, options, expected):
    path = tmp_path / "image"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "1M"], check=True
    )
    assert keeps_bitmaps(path.read_bytes()[:HEAD_BYTES]) is expected


@pytest.mark.parametrize("head", [b"", b"QFI\xfb", bytes(512)])
def test_what_is_no_qcow2_keeps_none(head):
    assert not keeps_bitmaps(head)
