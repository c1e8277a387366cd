"""Packagers as all of the program knows them: the files, options and abilities of each type.

A packager is one class here, and one folder of ``packagers`` with the same name, whose ``reader``
and ``writer`` modules ``packagers.registry`` loads. Other code asks the class, and never compares
names of types. File names are exactly virt-backup's; docs/reference/formats.md shows them::

    directory   <directory>/<file>                       one for each file of the package
    tar         <directory>/<name>.tar[.gz|.bz2|.xz]     one archive, with a member <file> for each
    zstd        <directory>/<name>_<file>.zstd           one for each
    repository  <directory>/<file>.map                   one for each; the data is in the repository

Options end up in the definition, and virt-backup passes them on as keyword arguments. So there can
only ever be the two that it knows.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from msgspec import Struct

from virtbackup_async.errors import DefinitionError
from virtbackup_async.model.backup import Definition, Packager, Pending
from virtbackup_async.model.names import plain_name
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import AnyFile, TargetFile

COMPRESSIONS: Final = (None, "gz", "bz2", "xz")
_OLD_COMPRESSIONS: Final = (*COMPRESSIONS, "tar")


class PackagerType:
    """A type of packager. One of these exists for each type; ``type_of`` finds it.

    Attributes:
        name: as in configurations and definitions.
        options: the names of its options.
        is_known: whether this program can read and write its packages.
        is_incremental: whether a package can take over unchanged data from an earlier one.
        uses_repository: whether the data is in the target's repository, shared with other
            backups, and the package only has maps of it.
        is_prefixed: whether the names of the package's files start with the backup's name twice.
        suffix: what is added to the names of the files.
    """

    name: ClassVar[str]
    options: ClassVar[tuple[str, ...]] = ()
    is_known: ClassVar[bool] = True
    is_incremental: ClassVar[bool] = False
    uses_repository: ClassVar[bool] = False
    is_prefixed: ClassVar[bool] = False
    suffix: ClassVar[str] = ""

    def file_names(self, _packager: Packager, name: str, files: Iterable[str]) -> list[str]:
        """Return the names of a package's files in the domain's directory.

        Args:
            _packager: of this type.
            name: the backup's name.
            files: the names of the files inside the package.

        Returns:
            One name for each of ``files``, in their order; or the name of the only file.

        Raises:
            DefinitionError: the type is unknown, or an option that the name depends on.
        """
        prefix = self._prefix(name)
        return [f"{prefix}{file}{self.suffix}" for file in files]

    def packed_name(self, name: str, file_name: str) -> str | None:
        """Return the file of the package ``name`` that a file in the domain's directory holds.

        None if the latter does not belong to the package, or is an archive of all its files.
        """
        if not (file_name.startswith(f"{name}_") and file_name.endswith(self.suffix)):
            return None
        return file_name.removesuffix(self.suffix).removeprefix(self._prefix(name))

    def least_bytes(self, definition: Definition, files: Iterable[str]) -> list[int]:
        """Return the least size of each file that ``file_names`` gives, as far as it is recorded.

        It is one byte for backups of virt-backup, which records no sizes.
        """
        stored = {image.file: image.stored_bytes for image in definition.images}
        return [stored.get(file, 1) for file in files]

    def may_shrink(self, _opts: Mapping[str, Any]) -> bool:
        """Return whether a package can take less space than its data: compressed, or stored before.

        Args:
            _opts: the packager's options.
        """
        return True

    def levels(self, _compression: str | None) -> tuple[int, int]:
        """Return the lowest and the highest ``compression_lvl`` of a compression."""
        return 1, 9

    def clean(self, opts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that have a meaning, each written in one way.

        The result has no unknown option, and none that asks for nothing special: null, the text
        ``None`` (virt-backup's example has it) and ``compression: tar``, an uncompressed tar.
        """
        known = {key: opts[key] for key in self.options if key in opts}
        return {key: value for key, value in known.items() if not _asks_for_nothing(key, value)}

    def problems(self, opts: Mapping[str, Any]) -> list[str]:
        """Return the problems of the options, a line each: ``<option>: <problem>``.

        Unknown options are no problem.
        """
        cleaned = self.clean(opts)
        compression = cleaned.get("compression")
        if compression not in COMPRESSIONS:
            return [f"compression: found {compression!r:.60}, expected none, gz, bz2 or xz"]
        if "compression_lvl" not in cleaned:
            return []
        return _level_problems(cleaned["compression_lvl"], *self.levels(compression))

    def _prefix(self, name: str) -> str:
        return f"{name}_" if self.is_prefixed else ""


class _Directory(PackagerType):
    """Each image is a file, as it is, with its holes."""

    name = "directory"

    def least_bytes(self, definition: Definition, files: Iterable[str]) -> list[int]:
        sizes = {image.file: image.size_bytes for image in definition.images}
        return [sizes.get(file, 1) for file in files]

    def may_shrink(self, _opts: Mapping[str, Any]) -> bool:
        return False


class _Tar(PackagerType):
    """One tar archive of all images, compressed or not."""

    name = "tar"
    options: ClassVar[tuple[str, ...]] = ("compression", "compression_lvl")

    def file_names(self, packager: Packager, name: str, _files: Iterable[str]) -> list[str]:
        # If a name contains ".tar" anywhere, virt-backup takes that for its suffix.
        if ".tar" in name:
            return [name]
        compression = packager.opts.get("compression")
        if compression not in _OLD_COMPRESSIONS:
            raise DefinitionError(f"unknown tar compression of {name}: {compression!r}")
        suffix = "" if compression in {None, "tar"} else f".{compression}"
        return [f"{name}.tar{suffix}"]

    def packed_name(self, _name: str, _file_name: str) -> str | None:
        return None

    def least_bytes(self, definition: Definition, _files: Iterable[str]) -> list[int]:
        return [max(1, sum(image.stored_bytes for image in definition.images))]

    def may_shrink(self, opts: Mapping[str, Any]) -> bool:
        return self.clean(opts).get("compression") is not None

    def levels(self, compression: str | None) -> tuple[int, int]:
        return (0, 9) if compression == "xz" else (1, 9)


class _Zstd(PackagerType):
    """Each image is a file with one zstd frame."""

    name = "zstd"
    options: ClassVar[tuple[str, ...]] = ("compression_lvl",)
    is_prefixed = True
    suffix = ".zstd"

    def levels(self, _compression: str | None) -> tuple[int, int]:
        return 0, 22  # 0 is zstd's own default


class _Repository(PackagerType):
    """Each image is a map of chunks, which are in the target's repository."""

    name = "repository"
    options: ClassVar[tuple[str, ...]] = ("compression_lvl",)
    is_incremental = True
    uses_repository = True
    suffix = ".map"

    def levels(self, _compression: str | None) -> tuple[int, int]:
        return 0, 22


class _Unknown(PackagerType):
    """The type of a newer program's packages."""

    is_known = False

    def file_names(self, packager: Packager, name: str, _files: Iterable[str]) -> list[str]:
        raise DefinitionError(f"unknown packager of {name}: {packager.type!r}")


_TYPES: Final[Mapping[str, PackagerType]] = {
    packager_type.name: packager_type
    for packager_type in (_Directory(), _Tar(), _Zstd(), _Repository())
}
_UNKNOWN: Final = _Unknown()

PACKAGER_TYPES: Final = tuple(_TYPES)
USUAL_TYPE: Final = _Tar.name
"""The packager of a configuration that names none, as in virt-backup."""
NULL_TYPE: Final = _Directory.name
"""The packager that ``packager: null`` selects, as in virt-backup."""
SHARING_TYPE: Final = _Repository.name
"""The packager that a new configuration proposes: equal data of all backups is stored once."""


def type_of(packager: Packager) -> PackagerType:
    """Return a packager's type; if its name is unknown, a type whose ``is_known`` is false."""
    return type_named(packager.type)


def type_named(name: str) -> PackagerType:
    """Return the packager type of this name, which may be unknown."""
    return _TYPES.get(name, _UNKNOWN)


def packed_files(backup: Definition | Pending) -> tuple[str, ...]:
    """Return the names of all files inside the package.

    The disks' images come first, then their backing files, then the domain's state.
    """
    if isinstance(backup, Pending):
        disks = backup.disks.values()
        images = tuple(file for disk in disks for file in (disk.target, *disk.backing))
        return (*images, *backup.state_files)
    backing = [image.file for record in backup.records.values() for image in record.backing]
    state = [record.image.file for record in backup.state_files]
    return (*backup.disks.values(), *backing, *state)


def package_files(backup: Definition | Pending) -> list[str]:
    """Return the names of the files, in the domain's directory, that the package consists of.

    An unknown packager has none: its package counts as complete, and its reader reports the
    problem.

    Raises:
        DefinitionError: an option that the names depend on is unknown.
    """
    packager_type = type_of(backup.packager)
    if not packager_type.is_known:
        return []
    return packager_type.file_names(backup.packager, backup.name, packed_files(backup))


def backup_files(definition: Definition, directory: AnyFile) -> tuple[TargetFile, ...]:
    """Return the files that a backup's package consists of; see ``Location``."""
    location = Location.below(directory, definition.packager, definition.name)
    return location.files(packed_files(definition))


class Location(Struct, frozen=True):
    """A package, whether it exists or not.

    Names may come from a hostile definition: no path leaves the domain's directory.

    Attributes:
        packager: its type and options.
        target: where the target's files are.
        domain: the name of the domain's directory in the target.
        name: the backup's name.
    """

    packager: Packager
    target: StorageLocation
    domain: str
    name: str

    @classmethod
    def below(cls, directory: AnyFile, packager: Packager, name: str) -> "Location":
        """Return the location of a package in a domain's directory."""
        if isinstance(directory, Path):
            directory = TargetFile.of(directory, 1)
        return cls(packager, directory.target, directory.stored_name, name)

    @property
    def directory(self) -> Path:
        """The domain's directory; StorageError if the target is not a local one."""
        return self.target.directory / self.domain

    def paths(self, files: Sequence[str]) -> tuple[Path, ...]:
        """Return the paths of the files that the package consists of.

        Args:
            files: the names of the files inside the package.

        Raises:
            DefinitionError: the packager is unknown, or a name is not a plain one.
        """
        directory = self.directory
        return tuple(directory / name for name in self._file_names(files))

    def files(self, files: Sequence[str]) -> tuple[TargetFile, ...]:
        """Return the same files wherever the target is; raises as ``paths``."""
        return tuple(TargetFile(self.target, name) for name in self.stored_names(files))

    def path(self, file: str) -> Path:
        """Return the path of the file that holds ``file`` of the package; raises as ``paths``."""
        (path,) = self.paths([file])
        return path

    def stored_names(self, files: Sequence[str]) -> tuple[str, ...]:
        """Return the names of these files in the target's storage; raises as ``paths``."""
        return tuple(f"{self.domain}/{name}" for name in self._file_names(files))

    def stored_name(self, file: str) -> str:
        """Return the name of the file that holds ``file``, in the storage; raises as ``paths``."""
        (name,) = self.stored_names([file])
        return name

    def _file_names(self, files: Sequence[str]) -> list[str]:
        for name in (self.name, *files):
            plain_name(name)
        names = type_of(self.packager).file_names(self.packager, self.name, files)
        return [plain_name(name) for name in names]


def _asks_for_nothing(option: str, value: object) -> bool:
    if option == "compression" and isinstance(value, str):
        return value.lower() in ("none", "tar")
    return value is None


def _level_problems(level: object, lowest: int, highest: int) -> list[str]:
    if isinstance(level, int) and not isinstance(level, bool) and lowest <= level <= highest:
        return []
    expected = f"expected a whole number from {lowest} to {highest}"
    return [f"compression_lvl: found {level!r:.60}, {expected}"]
