"""A target without a byte or an inode left: ``clean`` makes room, and the next backup is whole.

On small file systems in memory that are filled by backups, and then by somebody else to the last
byte, the last inode, or both; whatever the backups have in common.
"""

import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fakes.hypervisor import DescribedDomain
from fakes.site import NOW, Site
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.backup import session
from virtbackup_async.engine.clean.clean import run_clean
from virtbackup_async.engine.clean.request import CleanRequest
from virtbackup_async.events import BackupDone, BackupFailed, RemovalFailed, VerifyFailed
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.format import pack_format
from virtbackup_async.repository.format.chunks import CHUNK_BYTES

MIB = 1 << 20
LARGEST = 6
IMAGES = st.lists(
    st.lists(st.integers(1, 12), min_size=1, max_size=LARGEST), min_size=3, max_size=6
)
FILLED = st.sampled_from(["", "bytes", "inodes", "bytes and inodes"])
SWEPT_LATER = st.booleans()
PACKAGERS = ["directory", "tar", "zstd", "repository"]


@contextmanager
def small_file_system(mib: int, inodes: int) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        options = f"size={mib}m,nr_inodes={inodes}"
        mount = ["mount", "-t", "tmpfs", "-o", options, "none", directory]
        subprocess.run(mount, check=True)
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", directory], check=True)


def incompressible(numbers) -> bytes:
    return b"".join(random.Random(number).randbytes(CHUNK_BYTES) for number in numbers)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("packager", PACKAGERS)
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(images=IMAGES, filled=FILLED, swept_later=SWEPT_LATER)
@example(images=[[1, 2, 3, 4], [1, 5, 6], [7, 8, 9]], filled="bytes and inodes", swept_later=True)
def test_clean_makes_room_on_a_full_target(
    packager, images, filled, swept_later, tmp_path_factory, monkeypatch
):
    monkeypatch.setattr(pack_format, "PACK_BYTES", MIB)
    with small_file_system(12, 90) as target:
        site = FilledSite(tmp_path_factory.mktemp("site"), target, packager)
        anyio.run(partial(live, site, images, filled, swept_later))


async def live(site: "FilledSite", images, filled, swept_later) -> None:
    assert await site.fill(images) > 2
    # Elsewhere there would be nothing left to make room with.
    if swept_later and site.packager == "repository":
        await site.forget_all_but_the_newest()
    site.take_the_rest(filled)
    await site.clean(keep_last=1)
    await site.assert_good()
    assert await site.back_up(images[0]), "there is no room after the clean"
    await site.assert_good()


class FilledSite(Site):
    """One domain, and its target on a small file system."""

    def __init__(self, root: Path, target: Path, packager: str) -> None:
        self.image = root / "fake.raw"
        domain = DescribedDomain({"vda": self.image}, active=False)
        periods = dict.fromkeys(("hourly", "daily", "weekly", "monthly", "yearly"), 0)
        super().__init__(root, domain, target=target, packager=packager, **periods)
        self.packager = packager
        self.seconds = count()

    def now(self):
        """A second of its own for each backup."""
        return NOW.replace(year=2025, second=next(self.seconds) % 60)

    async def back_up(self, numbers) -> bool:
        self.image.write_bytes(incompressible(numbers))
        self.group["keep_last"] = 99
        await session.run_backup(self.runtime(now=self.now), session.BackupRequest())
        assert self.of(BackupDone) + self.of(BackupFailed)
        return not self.of(BackupFailed)

    async def fill(self, images) -> int:
        """Back up until there is no room for the largest image, or it fails."""
        for made in count():
            # Some chunks of its own for each, so that it comes to an end.
            if not await self.back_up([*images[made % len(images)], 100 + made]):
                return made
        raise AssertionError

    async def forget_all_but_the_newest(self) -> None:
        """As a clean that died before it had pruned."""
        *old, _ = (await Catalog(StorageLocation.of(self.target)).scan()).complete
        for found in old:
            for path in found.path.parent.local.glob(f"{found.definition.name}*"):
                path.unlink()

    def take_the_rest(self, filled: str) -> None:
        others = self.target / "others"
        with suppress(OSError):
            others.mkdir()
        if "bytes" in filled:
            with suppress(OSError):
                fill(others / "bytes")
        if "inodes" in filled:
            with suppress(OSError):
                for number in count():
                    (others / str(number)).touch()

    async def clean(self, keep_last: int) -> None:
        self.group["keep_last"] = keep_last
        await run_clean(self.runtime(), CleanRequest())
        assert not self.of(RemovalFailed)
        assert len((await Catalog(StorageLocation.of(self.target)).scan()).complete) == 1

    async def assert_good(self) -> None:
        await self.verify()
        assert not self.of(VerifyFailed)


def fill(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for length in (MIB, 4096, 1):
            with suppress(OSError):
                while os.write(fd, os.urandom(length)):
                    pass
    finally:
        os.close(fd)
