"""What may be begun anew, in full, and what may not: a package holds each disk once."""

from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from virtbackup_async.engine.backup.disk_copy import DiskJob, UnfitBaseError, copy_changes
from virtbackup_async.engine.point_in_time.interface import TrackedDisk
from virtbackup_async.errors import CorruptError
from virtbackup_async.model.domain import Disk
from virtbackup_async.model.tracking import Base, Tracked

SIZE_BYTES = 1 << 20


class Stream:
    size_bytes = SIZE_BYTES
    data_bytes = 0
    data_extents = ()


class Image:
    size_bytes = SIZE_BYTES
    changed = ()
    data_extents = ()

    @asynccontextmanager
    async def open_parts(self, parts):
        yield Stream()


class Package:
    """One whose base turns out to be damaged at a given step."""

    def __init__(self, step):
        self.step = step
        self.size_bytes = SIZE_BYTES

    @asynccontextmanager
    async def open_base(self, file, directory=""):
        self.reach("open")
        yield self

    async def choose(self, changed, doubtful=()):
        self.reach("choose")
        return ()

    async def sample(self, percent, data):
        self.reach("sample")
        return ()

    async def add_changes(self, file, stream, base, on_progress):
        self.reach("add")

    def reach(self, step):
        if step == self.step:
            raise CorruptError("a chunk is not what it was")


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("open", UnfitBaseError),
        ("choose", UnfitBaseError),
        ("sample", UnfitBaseError),
        ("add", CorruptError),
    ],
)
async def test_a_disk_is_begun_anew_only_before_its_first_change(step, error):
    @asynccontextmanager
    async def open_changes(buffers, limits):
        yield Image()

    environment = SimpleNamespace(emit=lambda event: None, buffers=None)
    before = Tracked(Base("former", "vda", "C", 0, "former"), None, True, None)
    tracked = TrackedDisk(before, None, open_changes)
    job = DiskJob("vm", "new", Disk("vda", Path("/vda"), "qcow2"), ("vda",), 0)
    with pytest.raises(error, match="is not what it was") as raised:
        await copy_changes(environment, job, Package(step), tracked)
    assert type(raised.value) is error
