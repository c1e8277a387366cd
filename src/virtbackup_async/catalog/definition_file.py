"""The definition of a complete backup, ``<name>.json``, next to its data.

The keys of virt-backup are at the top level with their meaning there, so that each program can
restore the other's backups. This program's own keys are there as well. docs/reference/formats.md
("Definition") is the reference. The store of this layer is the caller.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, Final, TypeVar

import msgspec

from virtbackup_async.catalog import checksum, links, raw_json
from virtbackup_async.compat import definition as compat
from virtbackup_async.compat.steps import parse_version
from virtbackup_async.errors import DefinitionError
from virtbackup_async.model.backup import (
    CopiedFrom,
    Definition,
    DiskRecord,
    ImageRecord,
    Original,
    Packager,
    StateRecord,
    Verification,
)
from virtbackup_async.model.heads import SEQUENCE_MAX
from virtbackup_async.model.target_file import AnyFile
from virtbackup_async.model.tracking import Reading
from virtbackup_async.version import __version__

SUFFIX = ".json"

T = TypeVar("T")

Bytes = Annotated[int, msgspec.Meta(ge=0)]


class PackagerWire(msgspec.Struct):
    """The packager; ``opts`` become keyword arguments in virt-backup, so it has no other keys."""

    type: str
    opts: dict[str, Any] | None = None


class ImageWire(msgspec.Struct):
    """One image of the package."""

    file: str
    source: str
    format: str
    size_bytes: Bytes
    data_bytes: Bytes
    stored_bytes: Bytes
    digest: str
    new_bytes: Bytes | None = None
    compressed_bytes: Bytes | None = None


class ReadingWire(msgspec.Struct):
    """How a disk was read into a repository."""

    checkpoint: str | None
    base: str | None
    reason: str | None
    full_date: Annotated[int, msgspec.Meta(ge=0, le=raw_json.DATE_MAX)]
    read_bytes: Bytes
    audited_bytes: Bytes = 0
    audit_failed: bool = False
    image_id: str | None = None
    checkpoint_of: str | None = None
    changed: list[tuple[Bytes, Bytes]] | None = None
    below: list[str] | None = None


class LayoutWire(msgspec.Struct):
    """How a qcow2 image is laid out."""

    version: int
    cluster_bits: int
    lazy_refcounts: bool = False
    extended_l2: bool = False


class OriginalWire(msgspec.Struct):
    """The image that a pulled disk was on."""

    format: str
    layout: LayoutWire | None = None


class DiskWire(ImageWire):
    """A disk: its own image, and those below it, nearest first."""

    backing: list[ImageWire] = []
    reading: ReadingWire | None = None
    original: OriginalWire | None = None


class StateWire(ImageWire, kw_only=True):
    """A file of the domain's state; an unknown ``kind`` is one of a newer program."""

    kind: str
    owner: str | None = None


class VerifiedWire(msgspec.Struct):
    """What ``verify`` last found; a date that cannot be shown makes the file unreadable."""

    date: Annotated[int, msgspec.Meta(ge=0, le=raw_json.DATE_MAX)]
    ok: bool
    digests: bool
    error: str | None = None


class CopiedFromWire(msgspec.Struct):
    """Where a copied backup was made."""

    target: str
    repository: str | None = None
    date: Annotated[int, msgspec.Meta(ge=0, le=raw_json.DATE_MAX)] = 0


class DefinitionWire(msgspec.Struct):
    """The complete file: virt-backup's keys, then this program's."""

    name: str
    domain_id: int
    domain_name: str
    version: str
    date: int
    packager: PackagerWire
    domain_xml: str | None = None
    disks: dict[str, str] = {}
    uuid: str | None = None
    state: str | None = None
    method: str | None = None
    quiesced: bool | None = None
    frozen_ms: Bytes | None = None
    not_quiesced: str | None = None
    pinned: bool = False
    verified: VerifiedWire | None = None
    skipped: dict[str, str] = {}
    images: dict[str, DiskWire] = {}
    state_files: list[StateWire] = []
    note: str | None = None
    copied_from: CopiedFromWire | None = None
    host: str | None = None
    accepted: Annotated[int, msgspec.Meta(ge=0, le=raw_json.DATE_MAX)] | None = None
    sequence: Annotated[int, msgspec.Meta(ge=1, le=SEQUENCE_MAX)] | None = None
    previous: Annotated[str, msgspec.Meta(pattern=links.PATTERN)] | None = None
    checksum: str | None = None


# Made once: a scan decodes thousands of files.
# Those that no compat step changes.
_CURRENT: Final = frozenset({"1.0.0", __version__})


def dumps(definition: Definition) -> bytes:
    """Return the content of a definition file, with its checksum."""
    wire = _wire(definition)
    raw = msgspec.to_builtins(wire)
    wire.checksum = checksum.checksum_of(raw)
    return raw_json.dump(wire)


def hash_of(definition: Definition) -> str:
    """Return the hash that a definition will have when it is read from its file."""
    return links.hash_of(msgspec.to_builtins(_wire(definition)))


def _wire(definition: Definition) -> DefinitionWire:
    return DefinitionWire(
        name=definition.name,
        domain_id=definition.domain_id,
        domain_name=definition.domain_name,
        version=definition.version,
        date=definition.date,
        packager=PackagerWire(definition.packager.type, definition.packager.opts),
        domain_xml=definition.domain_xml,
        disks=definition.disks,
        uuid=definition.domain_uuid,
        state=definition.state,
        method=definition.method,
        quiesced=definition.quiesced,
        frozen_ms=definition.frozen_ms,
        not_quiesced=definition.not_quiesced,
        pinned=definition.pinned,
        verified=msgspec.convert(definition.verified, VerifiedWire | None, from_attributes=True),
        skipped=definition.skipped,
        images={dev: _disk_wire(record) for dev, record in definition.records.items()},
        state_files=[_state_wire(record) for record in definition.state_files],
        note=definition.note,
        host=definition.host,
        accepted=definition.accepted,
        sequence=definition.sequence,
        previous=definition.previous,
        copied_from=msgspec.convert(
            definition.copied_from, CopiedFromWire | None, from_attributes=True
        ),
    )


def loads(data: bytes, path: AnyFile, *, trusted: bool = False) -> Definition:
    """Return the definition in ``data``, of any version; ``path`` is the file's.

    ``version`` stays that of the program that wrote it. A ``trusted`` one is read although its
    checksum is wrong, if it can be understood.

    Raises:
        DefinitionError: it is damaged, hostile or from a newer version.
    """
    raw: dict[str, Any] | None = None
    with suppress(DefinitionError):
        raw = raw_json.as_object(data, path)
    wire = _current(raw) or raw_json.parse(data, path, _upgrade, DefinitionWire)
    raw = raw or raw_json.as_object(data, path)
    if not trusted:
        checksum.check(raw, path)
    _check(wire, path)
    return Definition(
        name=wire.name,
        domain_id=wire.domain_id,
        domain_name=wire.domain_name,
        domain_xml=wire.domain_xml or "",
        disks=wire.disks,
        version=wire.version,
        date=wire.date,
        packager=Packager(wire.packager.type, wire.packager.opts or {}),
        domain_uuid=wire.uuid,
        records={dev: _disk_record(disk) for dev, disk in wire.images.items()},
        skipped=wire.skipped,
        quiesced=wire.quiesced,
        state=wire.state,
        method=wire.method,
        frozen_ms=wire.frozen_ms,
        not_quiesced=wire.not_quiesced,
        pinned=wire.pinned,
        verified=_verification(wire.verified) if wire.verified else None,
        state_files=tuple(map(_state_record, wire.state_files)),
        note=wire.note,
        host=wire.host,
        accepted=wire.accepted,
        sequence=wire.sequence,
        previous=wire.previous,
        hash=_hash_of(raw) if wire.sequence is not None else None,
        copied_from=msgspec.convert(wire.copied_from, CopiedFrom, from_attributes=True)
        if wire.copied_from
        else None,
    )


def _hash_of(raw: dict[str, Any]) -> str | None:
    """Return the hash of a definition; None if it could not have been written by this program."""
    try:
        return links.hash_of(raw)
    except (OverflowError, RecursionError, UnicodeError):
        return None  # only a trusted one gets here


def _current(raw: dict[str, Any] | None) -> DefinitionWire | None:
    """Return a definition that needs no compat step; None for all others, damaged ones too.

    Nearly all are such, and reading one in this way takes half the time.
    """
    version = raw.get("version") if raw is not None else None
    if not isinstance(version, str) or version not in _CURRENT:
        return None
    try:
        return msgspec.convert(raw, DefinitionWire)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def is_ours(version: str) -> bool:
    """Tell whether this program wrote it, and not virt-backup, whose last version is 0.5.6."""
    return parse_version(version) >= (1, 0, 0)


def _upgrade(raw: dict[str, Any]) -> dict[str, Any]:
    return {**compat.upgrade(raw), "version": raw.get("version")}


def _check(wire: DefinitionWire, path: AnyFile) -> None:
    ours = is_ours(wire.version)
    raw_json.check_date(wire.date, path)
    raw_json.check_name(wire.name, path, SUFFIX, ours=ours)
    for field, file in _files(wire):
        raw_json.check_file(file, wire.name, path, field, ours=ours)
    for dev, disk in wire.images.items():
        if wire.disks.get(dev) != disk.file:
            raise DefinitionError(f"images.{dev}.file is not disks.{dev}", disk=dev, path=path)


def _files(wire: DefinitionWire) -> Iterator[tuple[str, str]]:
    for dev, file in wire.disks.items():
        yield f"disks.{dev}", file
    for dev, disk in wire.images.items():
        for index, image in enumerate(disk.backing):
            yield f"images.{dev}.backing[{index}].file", image.file
    for index, state in enumerate(wire.state_files):
        yield f"state_files[{index}].file", state.file


def _disk_wire(record: DiskRecord) -> DiskWire:
    wire = msgspec.convert(msgspec.to_builtins(record.image), DiskWire)
    wire.backing = msgspec.convert(msgspec.to_builtins(record.backing), list[ImageWire])
    wire.reading = msgspec.convert(record.reading, ReadingWire | None, from_attributes=True)
    wire.original = msgspec.convert(record.original, OriginalWire | None, from_attributes=True)
    return wire


def _disk_record(disk: DiskWire) -> DiskRecord:
    return DiskRecord(
        image=_image_record(disk),
        backing=tuple(map(_image_record, disk.backing)) if disk.backing else (),
        reading=_converted(disk.reading, Reading),
        original=_converted(disk.original, Original),
    )


def _converted(wire: msgspec.Struct | None, kind: type[T]) -> T | None:
    # Most have none: a call of msgspec for each would take a twentieth of a scan.
    return None if wire is None else msgspec.convert(wire, kind, from_attributes=True)


def _state_wire(record: StateRecord) -> StateWire:
    own = {"kind": record.kind, "owner": record.owner}
    return msgspec.convert({**msgspec.to_builtins(record.image), **own}, StateWire)


def _state_record(state: StateWire) -> StateRecord:
    return StateRecord(state.kind, _image_record(state), state.owner)


def _image_record(image: ImageWire) -> ImageRecord:
    # By hand: several times as fast as by msgspec, and a scan does it for each image it finds.
    return ImageRecord(
        file=image.file,
        source=image.source,
        format=image.format,
        size_bytes=image.size_bytes,
        data_bytes=image.data_bytes,
        stored_bytes=image.stored_bytes,
        digest=image.digest,
        new_bytes=image.new_bytes,
        compressed_bytes=image.compressed_bytes,
    )


def _verification(verified: VerifiedWire) -> Verification:
    return msgspec.convert(verified, Verification, from_attributes=True)
