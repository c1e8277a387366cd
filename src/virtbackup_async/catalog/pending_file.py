"""The file of a backup that was started and not finished: ``<name>.json.pending``.

It is on disk before anything is made, and is removed last, so that ``clean`` can undo all that a
crash left. It has virt-backup's keys and this program's own; docs/reference/formats.md ("Pending")
is the reference. The store of this layer is the caller.
"""

from pathlib import Path
from typing import Any

import msgspec

from virtbackup_async.catalog import raw_json
from virtbackup_async.catalog.definition_file import PackagerWire, is_ours
from virtbackup_async.compat import pending as compat
from virtbackup_async.errors import DefinitionError
from virtbackup_async.model.backup import Packager, Pending, PendingDisk
from virtbackup_async.model.names import is_overlay_of, is_scratch
from virtbackup_async.model.pull import is_socket_of_ours
from virtbackup_async.model.target_file import AnyFile
from virtbackup_async.model.tracking import is_checkpoint_of_ours

SUFFIX = ".json.pending"


class DiskWire(msgspec.Struct):
    """The files about to be made for one disk; ``snapshot`` is null without an overlay."""

    src: str
    type: str
    snapshot: str | None
    target: str
    backing: tuple[str, ...] = ()
    committed: bool = False
    scratch: str | None = None
    tracked: bool = False


class PendingWire(msgspec.Struct):
    """The complete file: virt-backup's keys, then this program's."""

    name: str
    domain_id: int
    domain_name: str
    version: str
    date: int
    packager: PackagerWire
    domain_xml: str | None = None
    disks: dict[str, DiskWire] = {}
    uuid: str | None = None
    quiesce: bool = False
    state_files: tuple[str, ...] = ()
    socket: str | None = None
    checkpoint: str | None = None
    copied_from: str | None = None


def dumps(pending: Pending) -> bytes:
    """Return the content of a pending file."""
    return raw_json.dump(to_wire(pending))


def to_wire(pending: Pending) -> PendingWire:
    """Return a pending backup in the shape of its file."""
    return PendingWire(
        name=pending.name,
        domain_id=pending.domain_id,
        domain_name=pending.domain_name,
        version=pending.version,
        date=pending.date,
        packager=PackagerWire(pending.packager.type, pending.packager.opts),
        domain_xml=pending.domain_xml,
        disks=msgspec.convert(msgspec.to_builtins(pending.disks), dict[str, DiskWire]),
        uuid=pending.domain_uuid,
        quiesce=pending.quiesce,
        state_files=pending.state_files,
        socket=pending.socket,
        checkpoint=pending.checkpoint,
        copied_from=pending.copied_from,
    )


def loads(data: bytes, path: AnyFile) -> Pending:
    """Return the pending backup in ``data``, of any version; ``path`` is the file's.

    ``version`` stays that of the program that wrote it.

    Raises:
        DefinitionError: it is damaged, hostile or from a newer version.
    """

    def upgrade(raw: dict[str, Any]) -> dict[str, Any]:
        # virt-backup's first write of the file has no name yet; the file's own name is the same.
        named = {**raw, "name": raw.get("name") or path.name.removesuffix(SUFFIX)}
        return {**compat.upgrade(named), "version": raw.get("version")}

    return from_wire(raw_json.parse(data, path, upgrade, PendingWire), path)


def from_wire(wire: PendingWire, path: AnyFile) -> Pending:
    """Return the pending backup in the shape of a file; ``path`` is the file's.

    Raises:
        DefinitionError: a name in it is not one that such a file may hold.
    """
    _check(wire, path)
    return Pending(
        name=wire.name,
        domain_id=wire.domain_id,
        domain_name=wire.domain_name,
        domain_xml=wire.domain_xml or "",
        disks=msgspec.convert(msgspec.to_builtins(wire.disks), dict[str, PendingDisk]),
        version=wire.version,
        date=wire.date,
        packager=Packager(wire.packager.type, wire.packager.opts or {}),
        domain_uuid=wire.uuid,
        quiesce=wire.quiesce,
        state_files=wire.state_files,
        socket=wire.socket,
        checkpoint=wire.checkpoint,
        copied_from=wire.copied_from,
    )


def _check(wire: PendingWire, path: AnyFile) -> None:
    ours = is_ours(wire.version)
    raw_json.check_date(wire.date, path)
    raw_json.check_name(wire.name, path, SUFFIX, ours=ours)
    for dev, disk in wire.disks.items():
        if disk.snapshot is not None and not is_overlay_of(Path(disk.snapshot), Path(disk.src)):
            # An early error; engine/undo/evidence.py decides which names an undo trusts.
            raise DefinitionError(
                f"disks.{dev}.snapshot is not an overlay of its src", disk=dev, path=path
            )
        if disk.scratch is not None and not is_scratch(Path(disk.scratch)):
            raise DefinitionError(
                f"disks.{dev}.scratch is not a scratch image's name", disk=dev, path=path
            )
        for file in (disk.target, *disk.backing):
            raw_json.check_file(file, wire.name, path, f"disks.{dev}.target", ours=ours)
    if wire.socket is not None and not is_socket_of_ours(Path(wire.socket)):
        raise DefinitionError("socket is not the name of a backup job's socket", path=path)
    if wire.checkpoint is not None and not is_checkpoint_of_ours(wire.checkpoint):
        raise DefinitionError("checkpoint is not the name of one of ours", path=path)
    for file in wire.state_files:
        raw_json.check_file(file, wire.name, path, "state_files", ours=ours)
    if wire.copied_from is not None:
        _check_copy(wire, path)


def _check_copy(wire: PendingWire, path: AnyFile) -> None:
    """Raise DefinitionError if a copy names anything of a domain: none of these is undone."""
    touched = (wire.socket, wire.checkpoint, *(disk.snapshot for disk in wire.disks.values()))
    scratch = (disk.scratch for disk in wire.disks.values())
    if any(one is not None for one in (*touched, *scratch)):
        raise DefinitionError("copied_from: a copy touches no domain, and this does", path=path)
