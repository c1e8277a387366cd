"""The files that a restore writes, and their names.

As in virt-backup, a disk gets the name that its image had at the backup. This program's definitions
record that name; for those of virt-backup, the domain's XML has it. Invariant: the names are plain
and differ from each other, whatever the definition says.
"""

from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.errors import ConfigError, DefinitionError, NotFoundError
from virtbackup_async.images import digest
from virtbackup_async.model.backup import Definition, ImageRecord
from virtbackup_async.model.domain_state import UEFI_VARIABLES
from virtbackup_async.model.domain_xml import disk_sources, encrypted_devs, with_raw_disks
from virtbackup_async.model.names import COMPONENT_MAX_BYTES, is_plain_name, path_component
from virtbackup_async.model.pull import Method
from virtbackup_async.model.qcow2_options import Qcow2Options

QCOW2: Final = "qcow2"
RAW: Final = "raw"
LUKS: Final = "luks"
"""A raw image that is encrypted in full: libvirt calls it raw, although its content is not."""


class RestoredImage(Struct, frozen=True):
    """One file to write.

    Attributes:
        file: its name inside the package.
        name: its name in the restore's target.
        record: its record; None in backups of virt-backup.
        original_format: of the domain's image at the backup; None if unknown.
        layout: the best layout of a qcow2 image with its data.
        wrapped: whether this raw image becomes such a qcow2 image.
    """

    file: str
    name: str
    record: ImageRecord | None
    original_format: str | None = None
    layout: Qcow2Options = Qcow2Options()
    wrapped: bool = False

    @property
    def format(self) -> str | None:
        """The format of the restored file; None if unknown."""
        if self.wrapped:
            return QCOW2
        return self.record.format if self.record else None

    @property
    def expected_digest(self) -> str | None:
        """The recorded digest; None if there is none to compare with."""
        if self.record is None or not self.record.digest.startswith(digest.PREFIX):
            return None
        return self.record.digest


class RestoredDisk(Struct, frozen=True):
    """A disk's files: its own image, then those below it."""

    dev: str
    images: tuple[RestoredImage, ...]

    @property
    def data_bytes(self) -> int:
        """The recorded bytes of data of its images; 0 in backups of virt-backup."""
        return sum(image.record.data_bytes for image in self.images if image.record)


class RestoredState(Struct, frozen=True):
    """A file of the domain's state, such as its UEFI variables.

    Attributes:
        kind: see model/domain_state.py.
        source_name: its name in the domain's directory.
        owner: the user that it belonged to there.
    """

    kind: str
    image: RestoredImage
    source_name: str
    owner: str | None


class RestorePlan(Struct, frozen=True):
    """The files that a restore writes; ``xml_name`` is the file of the domain's XML."""

    disks: tuple[RestoredDisk, ...]
    xml_name: str
    state: tuple[RestoredState, ...] = ()

    @property
    def devs(self) -> tuple[str, ...]:
        """The disks, by target name."""
        return tuple(disk.dev for disk in self.disks)

    @property
    def images(self) -> tuple[RestoredImage, ...]:
        """All files but the XML, the disks' first."""
        of_disks = (image for disk in self.disks for image in disk.images)
        return (*of_disks, *(state.image for state in self.state))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all files, the disks' first."""
        return (*(image.name for image in self.images), self.xml_name)

    @property
    def data_bytes(self) -> int:
        """The bytes of data to write, as far as recorded."""
        return sum(image.record.data_bytes for image in self.images if image.record)

    @property
    def is_verifiable(self) -> bool:
        """Whether every image has a digest to compare with."""
        return all(image.expected_digest is not None for image in self.images)


class Formats(Struct, frozen=True):
    """The format to restore disks in: ``wanted``; None for the format in the package.

    With ``as_they_were``, a disk that was pulled from qcow2 becomes qcow2 if no format is wanted.
    """

    wanted: str | None = None
    as_they_were: bool = False

    def wrap(self, image: ImageRecord, original: str | None) -> bool:
        """Return whether a disk's own image is to become qcow2.

        Raises:
            ConfigError: it is qcow2, and raw is wanted; or it is neither, and qcow2 is wanted.
        """
        if self.wanted == QCOW2 and image.format not in {RAW, QCOW2}:
            what = "encrypted as a whole" if image.format == LUKS else image.format
            raise ConfigError(
                f"{image.file} is {what} in the backup, and does not become qcow2",
                hint="Leave --format out: it is restored as the image it is.",
            )
        if self.wanted == RAW and image.format not in {RAW, LUKS}:
            raise ConfigError(
                f"{image.file} is {image.format} in the backup",
                hint="`virtbackup export --format raw` takes it apart.",
            )
        if image.format != RAW:
            return False
        if self.wanted is not None:
            return self.wanted == QCOW2
        return self.as_they_were and original == QCOW2


_AS_PACKED: Final = Formats()
AS_THEY_WERE: Final = Formats(as_they_were=True)


def plan_restore(
    definition: Definition, wanted: Collection[str] = (), formats: Formats = _AS_PACKED
) -> RestorePlan:
    """Name the files; a disk's names do not depend on which other disks are restored.

    Args:
        definition: the backup.
        wanted: the only disks to restore; empty for all, and the domain's state.
        formats: the formats that the disks get.

    Raises:
        ConfigError: a disk cannot be restored in the wanted format.
        NotFoundError: a wanted disk is not in the backup.
        DefinitionError: a file's name in the definition is no plain name, or comes twice, or it
            has no disks: nothing must not pass for a backup.
    """
    for dev in wanted:
        if dev not in definition.disks:
            has = ", ".join(definition.disks) or "none"
            raise NotFoundError(
                f"no disk {dev} in backup {definition.name}",
                disk=dev,
                hint=f"Its disks are: {has}.",
            )
    if not definition.disks:
        raise DefinitionError(f"backup {definition.name} holds no disk")
    xml_name = path_component(definition.domain_name, COMPONENT_MAX_BYTES - 4) + ".xml"
    taken = {xml_name}
    sources = {} if definition.records else _sources(definition)
    disks = []
    for dev, file in definition.disks.items():
        images = []
        for image in _images(definition, dev, file, sources.get(dev, ""), formats):
            name = _free_name(taken, dev, image.name, image.file)
            taken.add(name)
            images.append(replace(image, name=name))
        if not wanted or dev in wanted:
            disks.append(RestoredDisk(dev, tuple(images)))
    state = () if wanted else tuple(_state(definition, taken))
    return RestorePlan(tuple(disks), xml_name, state)


def _state(definition: Definition, taken: set[str]) -> Iterator[RestoredState]:
    for record in definition.state_files:
        source_name = PurePosixPath(record.image.source).name
        if not is_plain_name(source_name):
            source_name = record.image.file
        shown = source_name if record.kind in UEFI_VARIABLES else f"{record.kind}-{source_name}"
        name = _free_name(taken, record.kind, shown, record.image.file)
        taken.add(name)
        image = RestoredImage(record.image.file, name, record.image)
        yield RestoredState(record.kind, image, source_name, record.owner)


def xml_of(definition: Definition) -> str:
    """Return the XML with the image formats of the package.

    In older backups, the XML of a pulled disk has facts that are not true of a raw image.
    """
    if definition.method != Method.PULL:
        return definition.domain_xml
    raw = [dev for dev, record in definition.records.items() if record.image.format == RAW]
    return with_raw_disks(definition.domain_xml, raw)


def encrypted_in(definition: Definition) -> frozenset[str]:
    """Return the disks that are encrypted in the backup."""
    try:
        return encrypted_devs(xml_of(definition))
    except DefinitionError:
        return frozenset()  # the XML is lost, but perhaps not the disks


def _images(
    definition: Definition, dev: str, file: str, source: str, formats: Formats
) -> Iterator[RestoredImage]:
    """Yield a disk's images, each with its preferred name."""
    disk = definition.records.get(dev)
    if disk is None:
        if formats.wanted is not None:
            raise ConfigError(
                f"nobody recorded what {file} is", hint="Use `virtbackup export` in place of it."
            )
        yield RestoredImage(file, source, None)
        return
    if disk.image.format == RAW and dev in encrypted_in(definition):
        # A copy of the image as it is has libvirt's format in its record.
        disk = replace(disk, image=replace(disk.image, format=LUKS))
    was = disk.original_format if definition.method == Method.PULL else disk.image.format
    layout = disk.original.layout if disk.original else None
    if layout is None or not layout.can_be_written:
        layout = Qcow2Options()
    wrapped = formats.wrap(disk.image, was)
    # An image that is not raw was copied as a file, even if other disks were pulled.
    method = definition.method if disk.image.format == RAW else None
    name = _named_as(disk.image.source, method, wrapped=wrapped)
    yield RestoredImage(disk.image.file, name, disk.image, was, layout, wrapped)
    for image in disk.backing:
        name = _named_as(image.source, method, wrapped=False)
        yield RestoredImage(image.file, name, image)


def _named_as(source: str, method: str | None, *, wrapped: bool) -> str:
    """Return a descriptive name that does not depend on the source path."""
    if wrapped:
        return _without_suffix(source) + ".qcow2"
    if method != Method.PULL or source.endswith((".raw", ".img")):
        return source
    return source.removesuffix(".qcow2") + ".raw"


def _without_suffix(source: str) -> str:
    for suffix in (".qcow2", ".raw", ".img"):
        source = source.removesuffix(suffix)
    return source


def _free_name(taken: set[str], dev: str, source: str, file: str) -> str:
    base = PurePosixPath(source).name
    candidates = (base, f"{path_component(dev, 16)}_{base}") if is_plain_name(base) else ()
    for name in candidates:
        if is_plain_name(name) and name not in taken:
            return name
    # The names inside the package differ from each other.
    if not is_plain_name(file) or file in taken:
        raise DefinitionError(f"no usable file name for {dev}: {file!r}", disk=dev)
    return file


def _sources(definition: Definition) -> dict[str, str]:
    try:
        return {dev: str(path) for dev, path in disk_sources(definition.domain_xml).items()}
    except DefinitionError:
        return {}  # the names are lost, but perhaps not the disks
