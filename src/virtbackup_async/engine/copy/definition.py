"""What a copy's files say: the pending file at first, and at the end the definition."""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.engine.copy.destination import Destination
from virtbackup_async.engine.restore.plan import RAW, RestoredDisk, RestoredImage
from virtbackup_async.errors import DefinitionError
from virtbackup_async.model.backup import (
    CopiedFrom,
    Definition,
    DiskRecord,
    ImageRecord,
    Original,
    Pending,
    PendingDisk,
    StateRecord,
)
from virtbackup_async.model.domain_xml import disk_sources
from virtbackup_async.model.names import disk_file, is_plain_name, plain_name
from virtbackup_async.model.packager import type_of
from virtbackup_async.packagers.interface import Taken
from virtbackup_async.version import __version__


class CopyPlan(Struct, frozen=True):
    """The images to copy.

    Attributes:
        definition: the source's.
        disks: each image with its name in the copy's package as ``name``.
        state: the files of the domain's state.
        sources: by dev, the paths of the disks' images, where no record has them.
    """

    definition: Definition
    disks: tuple[RestoredDisk, ...]
    state: tuple[RestoredImage, ...]
    sources: Mapping[str, str]

    @property
    def devs(self) -> tuple[str, ...]:
        """The disks."""
        return tuple(disk.dev for disk in self.disks)

    @property
    def data_bytes(self) -> int:
        """The recorded bytes of data; 0 in backups of virt-backup."""
        return sum(image.data_bytes for image in self.definition.images)

    def record(self, dev: str, image: RestoredImage, copied: Taken) -> ImageRecord:
        """Return the record of an image of a disk that is in the copy's package.

        virt-backup records none, but it names an image after its format, and the XML has its path.
        """
        record = image.record
        form = PurePosixPath(image.file).suffix.removeprefix(".") or RAW
        return ImageRecord(
            file=image.name,
            source=record.source if record else self.sources.get(dev, ""),
            format=record.format if record else form,
            size_bytes=copied.size_bytes,
            data_bytes=record.data_bytes if record else copied.data_bytes,
            stored_bytes=copied.stored_bytes,
            digest=copied.digest,
            new_bytes=record.new_bytes if record else None,
            compressed_bytes=record.compressed_bytes if record else None,
        )


def plan_copy(definition: Definition) -> CopyPlan:
    """Name the images in the copy's package.

    They keep their names, except those of virt-backup that do not begin with the backup's name.

    Raises:
        DefinitionError: it has no disks, or a name is not a plain one or comes twice.
    """
    if not definition.disks:
        raise DefinitionError(f"backup {definition.name} holds no disk")
    disks = tuple(
        RestoredDisk(dev, tuple(_images(definition, dev, file)))
        for dev, file in definition.disks.items()
    )
    state = tuple(
        RestoredImage(record.image.file, record.image.file, record.image)
        for record in definition.state_files
    )
    names = [image.name for disk in disks for image in disk.images]
    names += [image.name for image in state]
    if len(set(names)) < len(names):
        raise DefinitionError(f"backup {definition.name} names a file twice")
    for name in names:
        plain_name(name)
    return CopyPlan(definition, disks, state, _sources(definition))


def _sources(definition: Definition) -> Mapping[str, str]:
    if definition.records:
        return {}
    try:
        return {dev: str(path) for dev, path in disk_sources(definition.domain_xml).items()}
    except DefinitionError:
        return {}


def _images(definition: Definition, dev: str, file: str) -> Iterator[RestoredImage]:
    record = definition.records.get(dev)
    if record is None:
        is_named = is_plain_name(file) and file.startswith(f"{definition.name}_")
        suffix = PurePosixPath(file).suffix.removeprefix(".") or RAW
        name = file if is_named else disk_file(definition.name, dev, suffix)
        yield RestoredImage(file, name, None)
        return
    for image in (record.image, *record.backing):
        yield RestoredImage(image.file, image.file, image)


def copy_pending(plan: CopyPlan, destination: Destination, source: str) -> Pending:
    """Return the pending file of a copy.

    Args:
        plan: the images.
        destination: where it is made.
        source: the target that it is read from.
    """
    definition = plan.definition
    disks = {}
    for disk in plan.disks:
        top, *below = disk.images
        record = top.record
        source_path, form = (record.source, record.format) if record else ("", RAW)
        backing = tuple(image.name for image in below)
        disks[disk.dev] = PendingDisk(source_path, form, None, top.name, backing)
    return Pending(
        name=definition.name,
        domain_id=definition.domain_id,
        domain_name=definition.domain_name,
        domain_xml=definition.domain_xml,
        disks=disks,
        version=__version__,
        date=definition.date,
        packager=destination.packager,
        domain_uuid=definition.domain_uuid,
        state_files=tuple(image.name for image in plan.state),
        copied_from=source,
    )


def copied_definition(
    plan: CopyPlan,
    destination: Destination,
    images: Mapping[str, ImageRecord],
    copied_from: CopiedFrom,
) -> Definition:
    """Return the definition of a copy, which is complete in itself.

    What was known of the backup stays known, but for two things: whether ``verify`` found it good,
    because it has not read the copy; and libvirt's checkpoints, which belong to the first target.

    Args:
        plan: the images.
        destination: where the copy is.
        images: the images in the copy's package, by their names there.
        copied_from: where the backup was made; unless it is a copy already, which says that itself.
    """
    definition = plan.definition
    uses_repository = type_of(destination.packager).uses_repository
    records = {}
    for disk in plan.disks:
        record = definition.records.get(disk.dev)
        top, *backing = (images[image.name] for image in disk.images)
        copied = DiskRecord(top, tuple(backing))
        records[disk.dev] = _with_history(copied, record, uses_repository=uses_repository)
    made_at = definition.copied_from or copied_from
    state = [
        StateRecord(was.kind, images[image.name], was.owner)
        for image, was in zip(plan.state, definition.state_files, strict=True)
    ]
    return replace(
        definition,
        disks={dev: record.image.file for dev, record in records.items()},
        version=__version__,
        packager=destination.packager,
        records=records,
        verified=None,
        state_files=tuple(state),
        copied_from=replace(made_at, date=copied_from.date),
    )


def _with_history(
    copied: DiskRecord, record: DiskRecord | None, *, uses_repository: bool
) -> DiskRecord:
    if record is None:
        return copied
    original = record.original
    if original is None and record.original_format is not None:
        # Only the checkpoint told, which the copy does not have.
        original = Original(record.original_format)
    reading = record.reading if uses_repository else None
    if reading is not None:
        reading = replace(reading, checkpoint=None, checkpoint_of=None, changed=None)
    return replace(copied, reading=reading, original=original)
