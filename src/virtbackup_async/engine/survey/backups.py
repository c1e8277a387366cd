"""The overview's facts about backups, from their definitions. Pure."""

from collections.abc import Iterable

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.engine.inventory.dates import date_of_name
from virtbackup_async.engine.inventory.lacking import lacks_of
from virtbackup_async.events import BrokenBackup
from virtbackup_async.model.backup import Definition, DiskRecord
from virtbackup_async.model.facts import BackupFacts, BrokenFacts


def backup_facts(found: FoundBackup, *, expires: bool, is_newest: bool) -> BackupFacts:
    """Return the facts of a complete backup.

    Args:
        found: the backup.
        expires: whether ``clean`` would remove it.
        is_newest: whether to find also unrecorded skipped disks, which parses its XML.
    """
    definition = found.definition
    images = definition.images
    verified = definition.verified
    lacks = lacks_of(definition) if is_newest else definition.lacks
    readings = [r.reading for r in definition.records.values() if r.reading is not None]
    in_full = (r.reason for r in readings if r.base is None and r.reason is not None)
    return BackupFacts(
        name=definition.name,
        date=definition.date,
        verified=verified.ok if verified else None,
        verified_date=verified.date if verified else None,
        quiesced=definition.quiesced,
        not_quiesced=definition.not_quiesced,
        disks=tuple(sorted(definition.disks.keys() | definition.skipped.keys())),
        lacks=tuple(lacks.items()),
        pinned=definition.pinned,
        expires=expires,
        size_bytes=sum(image.size_bytes for image in images),
        data_bytes=sum(image.data_bytes for image in images),
        stored_bytes=sum(image.stored_bytes for image in images),
        read_bytes=_read_bytes(definition),
        frozen_ms=definition.frozen_ms,
        full_reason=next(in_full, None),
        audited_bytes=sum(reading.audited_bytes for reading in readings),
        audit_failed=any(reading.audit_failed for reading in readings),
    )


def _read_bytes(definition: Definition) -> int:
    disks = sum(map(_read_of, definition.records.values()))
    return disks + sum(state.image.data_bytes for state in definition.state_files)


def _read_of(record: DiskRecord) -> int:
    if record.reading is not None:
        return record.reading.read_bytes
    return sum(image.data_bytes for image in (record.image, *record.backing))


def broken_facts(broken: Iterable[BrokenBackup]) -> tuple[BrokenFacts, ...]:
    """Return the facts of unreadable backups; the date comes from the name, if it has one."""
    return tuple(BrokenFacts(one.backup, date_of_name(one.backup), one.error) for one in broken)
