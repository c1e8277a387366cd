"""What the commands are run on while their files fail, and what has to hold of each afterwards.

::

    target    three backups of one shut-off domain, whose image was another one each time
    image     what the domain's disk holds now, in none of them
    out       where restores and exports go

Everything is below one directory, so that all of it can fail, and be made anew in moments.
"""

import shutil
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import anyio
import yaml
from msgspec import Struct

from fakes.hypervisor import DescribedDomain, FakeHypervisor
from fakes.small_repository import content
from fakes.stored_backup import StoredBackup
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.packagers.registry import open_reader

FIRST: Final = datetime(2024, 3, 1, 2, 15, tzinfo=UTC)
# What the first alone has goes with it; another pack is needed by nobody from the beginning.
IMAGES: Final = [content([6, 7, 8, 1]), content([1, 2]), content([2, 4, 1])]
_FORGOTTEN: Final = content([9, 10, 11])
NOW: Final = content([4, 5])
PACKAGERS: Final = {
    "directory": Packager("directory"),
    "tar": Packager("tar"),
    "tar.gz": Packager("tar", {"compression": "gz"}),
    "zstd": Packager("zstd"),
    "repository": Packager("repository"),
}


class Stage:
    """The directory with all of it, as it was made for one packager."""

    def __init__(self, root: Path, packager: str) -> None:
        self.root = root / "stage"
        self.begun = root / f"begun-{packager}"
        self.packager = PACKAGERS[packager]
        self.target = self.root / "target"
        self.directory = self.target / "fake"
        self.image = self.root / "images" / "fake.raw"
        self.locks = self.root / "locks"
        self.out = self.root / "out"
        self.state = self.root / "state"
        self.config = root / "config.yml"

    def make(self, change: Callable[["Stage"], None] | None) -> None:
        """Make the beginning, to which ``renew`` goes back."""
        for directory in (self.target, self.image.parent, self.locks, self.out):
            directory.mkdir(parents=True)
        self.image.write_bytes(_FORGOTTEN)
        date = int((FIRST - timedelta(days=1)).timestamp())
        forgotten = anyio.run(
            StoredBackup(self.target, self.packager, "fake", date).make, self.image
        )
        for path in (forgotten.path, forgotten.package):
            path.unlink()
        for number, data in enumerate(IMAGES):
            self.image.write_bytes(data)
            date = int((FIRST + timedelta(days=number)).timestamp())
            anyio.run(StoredBackup(self.target, self.packager, "fake", date).make, self.image)
        self.image.write_bytes(NOW)
        self.write_config()
        if change is not None:
            change(self)
        self.root.rename(self.begun)

    def write_config(self) -> None:
        group = {
            "target": str(self.target),
            "hosts": ["fake"],
            "autostart": True,
            "packager": self.packager.type,
            "packager_opts": dict(self.packager.opts),
            "keep_last": 2,
            **dict.fromkeys(("hourly", "daily", "weekly", "monthly", "yearly"), 0),
        }
        self.config.write_text(yaml.safe_dump({"groups": {"g": group}}))

    def renew(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.begun, self.root, symlinks=True)

    @asynccontextmanager
    async def open_hypervisor(self, *_: object, **__: object) -> AsyncGenerator[FakeHypervisor]:
        """The libvirt that the commands speak to."""
        yield FakeHypervisor(DescribedDomain({"vda": self.image}, active=False))

    def expected_of(self, found: FoundBackup) -> bytes:
        """What a backup has to hold: one that was not there at first, what the image is now."""
        days = (datetime.fromtimestamp(found.definition.date, UTC) - FIRST).days
        if days < len(IMAGES):
            return IMAGES[days]
        data = self.image.read_bytes()
        assert data in {NOW, IMAGES[-1]}, "the image is neither what it was nor what was restored"
        return data

    async def listed(self) -> list[FoundBackup]:
        return list((await Catalog(StorageLocation.of(self.target)).scan()).complete)

    async def content_of(self, found: FoundBackup) -> bytes:
        """Read a backup back, through its packager."""
        definition = found.definition
        directory, name = found.path.parent, definition.name
        async with open_reader(definition.packager, directory, name, BufferPool()) as package:
            (file,) = definition.disks.values()
            async with package.open_disk(file) as stream:
                data = bytearray(stream.size_bytes)
                async for chunk in stream.pieces():
                    data[chunk.offset : chunk.offset + len(chunk.data)] = chunk.data
                return bytes(data)


class Scene(Struct, frozen=True):
    """A command, on what it is run, and what it has done if it says that all went well.

    Attributes:
        command: its words; ``{date}`` and ``{out}`` stand for what the stage has.
        packagers: with which it is tried.
        change: what is different from the usual beginning.
        replaces: whether it may put another image in the place of the domain's.
        is_done: tells by the stage, and by what was said, whether what was asked for was done.
    """

    command: Sequence[str]
    packagers: Sequence[str]
    is_done: Callable[[Stage, str], bool]
    change: Callable[[Stage], None] | None = None
    replaces: bool = False

    def words(self, stage: Stage) -> list[str]:
        return [word.format(out=stage.out) for word in self.command]


def _listed(stage: Stage) -> list[FoundBackup]:
    return anyio.run(stage.listed)


def _has_new_backup(stage: Stage, _said: str) -> bool:
    return any(stage.expected_of(found) == NOW for found in _listed(stage))


def _is_cleaned(stage: Stage, said: str) -> bool:
    # What cannot be read is let be, and that is told.
    return len(_listed(stage)) == len(IMAGES) - 1 or "left alone" in said


def _is_forgotten(stage: Stage, said: str) -> bool:
    # What is not there by now is not removed again.
    return len(_listed(stage)) == len(IMAGES) - 1 or "0 backups removed" in said


def _is_restored(stage: Stage, _said: str) -> bool:
    (path,) = (stage.out / "r").glob("*.raw")
    return path.read_bytes() == IMAGES[-1]


def _is_exported(stage: Stage, _said: str) -> bool:
    return (stage.out / "e.raw").read_bytes() == IMAGES[-1]


def _is_in_place(stage: Stage, _said: str) -> bool:
    return stage.image.read_bytes() == IMAGES[-1]


def _is_pinned(stage: Stage, _said: str) -> bool:
    return _listed(stage)[-1].definition.pinned


def _is_unpinned(stage: Stage, _said: str) -> bool:
    return not _listed(stage)[-1].definition.pinned


def _is_said(_stage: Stage, _said: str) -> bool:
    return True


def _pin(stage: Stage) -> None:
    path = _listed(stage)[-1].path
    anyio.run(_amend, path)


async def _amend(path: TargetFile) -> None:
    from virtbackup_async.catalog.amendment import amend_definition  # noqa: PLC0415 -- one user

    await amend_definition(path, {"pinned": True})


def _break(stage: Stage) -> None:
    """Damage all that `repair` mends, and lose nothing by it."""
    repository = stage.target / ".virtbackup-repository"
    segment, *_ = sorted(repository.glob("index/*.index"))
    segment.write_bytes(b"?" + segment.read_bytes()[1:])
    pack, *_ = sorted(repository.glob("packs/*/*.pack"))
    pack.write_bytes(b"?" + pack.read_bytes()[1:])
    (repository / "condemned").write_text("?")
    (repository / "repository").unlink()


def _is_repaired(stage: Stage, _said: str) -> bool:
    return all(
        anyio.run(stage.content_of, found) == stage.expected_of(found) for found in _listed(stage)
    )


_ALL: Final = tuple(PACKAGERS)
SCENES: Final = {
    "backup": Scene(["backup"], _ALL, _has_new_backup),
    "clean": Scene(["clean"], _ALL, _is_cleaned),
    "forget": Scene(["forget", "fake@2024-03-02"], _ALL, _is_forgotten),
    "verify": Scene(["verify"], _ALL, _is_said),
    "verify --quick": Scene(["verify", "--quick"], ["directory", "repository"], _is_said),
    "restore": Scene(["restore", "g", "fake", "{out}/r"], _ALL, _is_restored),
    "restore --in-place": Scene(
        ["restore", "g", "fake", "--in-place"],
        ["directory", "repository"],
        _is_in_place,
        replaces=True,
    ),
    "export": Scene(
        ["export", "g", "fake", "vda", "{out}/e.raw", "--format", "raw"], _ALL, _is_exported
    ),
    "repair": Scene(["repair"], ["repository"], _is_repaired, _break),
    "pin": Scene(["pin", "g", "fake"], ["directory"], _is_pinned),
    "unpin": Scene(["unpin", "g", "fake"], ["directory"], _is_unpinned, _pin),
    "list": Scene(["list", "-a"], ["directory"], _is_said),
    "stats": Scene(["stats"], ["directory", "repository"], _is_said),
    "doctor": Scene(["doctor"], ["directory", "repository"], _is_said),
}
