"""What cannot be tracked is told why: header and domain, as they are."""

import re
from pathlib import Path

import pytest

from virtbackup_async.engine.backup.tracking import read_image_head, why_untrackable
from virtbackup_async.host.local import LocalHost
from virtbackup_async.model.domain import Disk, DomainInfo
from virtbackup_async.model.qcow2_options import Qcow2Options
from virtbackup_async.qemu.qcow2 import Qcow2Head

IMAGE = Disk("vda", Path("/i/a"), "qcow2")


def why(image=IMAGE, head=None, *, persistent=True, with_snapshots=False):
    info = DomainInfo("web", "u", 1, True, persistent, "")
    return why_untrackable(info, image, head, with_snapshots=with_snapshots)


def head(version=3, snapshots=0, data_file=None):
    return Qcow2Head(version, False, snapshots, data_file, Qcow2Options())


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (why(persistent=False), "transient"),
        (why(Disk("vda", Path("/i/a"), "raw")), "a raw image cannot"),
        (why(head=head(version=2)), "compat=1.1"),
        (why(head=head(data_file="/i/data")), "another file"),
        (why(head=head(snapshots=1)), "internal snapshots.*track_with_snapshots"),
    ],
)
def test_what_cannot_be_tracked(found, reason):
    assert found is not None
    assert re.search(reason, found)


def test_what_can_be():
    assert why(head=head()) is None
    assert why(head=head(snapshots=1), with_snapshots=True) is None
    assert why(head=None) is None, "QEMU may be able to read it"


async def test_no_header_is_read_of_what_is_no_file(tmp_path):
    raw = tmp_path / "raw"
    raw.write_bytes(b"QFI\xfb" + bytes(200))
    assert await read_image_head(LocalHost(), Disk("vda", raw, "raw")) is None
    assert await read_image_head(LocalHost(), Disk("vda", raw, "qcow2", kind="network")) is None
    assert await read_image_head(LocalHost(), Disk("vda", tmp_path / "gone", "qcow2")) is None
