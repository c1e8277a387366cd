"""The ``show`` command: everything that is known of one backup, and how to restore it."""

from collections.abc import Iterator

from anyio import to_thread
from msgspec import Struct

from virtbackup_async import events
from virtbackup_async.catalog.checksum import TRUST_OPTION
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.inventory.chosen_backup import NamedBackup, find_named
from virtbackup_async.engine.inventory.command_lines import command_line, exact_name
from virtbackup_async.engine.inventory.dates import date_of_name, time_of
from virtbackup_async.engine.inventory.freed import freed_together, package_paths
from virtbackup_async.engine.inventory.lacking import find_lacks
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import CorruptError, StorageError
from virtbackup_async.model.backup import (
    BackupState,
    Definition,
    DiskRecord,
    ImageRecord,
)

_DIRECTORY = "DIRECTORY"


class ShowRequest(Struct, frozen=True):
    """The backup to show: ``name`` as in ``backup_names``; ``date`` if the name has none."""

    name: str
    group: str | None = None
    date: str | None = None


async def run_show(runtime: Runtime, request: ShowRequest) -> events.ShownBackup:
    """Report everything that is known of a backup.

    Raises:
        NotFoundError: there is no such backup.
        ConfigError: the name can mean several, or the date cannot be understood.
        StorageError: the target cannot be read.
        CorruptError: the backup is broken; the facts that are known were emitted.
    """
    named = await find_named(runtime, request.group, request.name, request.date)
    shown = _broken(runtime, named)
    if named.found is not None:
        shown = _complete(runtime, named, named.found.definition, await _frees(runtime, named))
    runtime.emit(shown)
    if named.found is None:
        raise CorruptError(f"{named.name} is broken: nothing can be restored from it")
    return shown


async def _frees(runtime: Runtime, named: NamedBackup) -> int | None:
    found = named.found
    files = (named.path, *(package_paths(found) if found else ()))
    try:
        return await to_thread.run_sync(freed_together, named.target, files)
    except (CorruptError, StorageError) as error:
        runtime.emit(events.Warned(f"what removing it frees is not known: {error}", named.domain))
        return None


def _complete(
    runtime: Runtime, named: NamedBackup, definition: Definition, frees_bytes: int | None
) -> events.ShownBackup:
    verified = definition.verified
    return events.ShownBackup(
        group=named.group,
        domain=named.domain,
        backup=named.name,
        definition=str(named.path),
        target=str(named.target),
        state=str(definition.backup_state),
        date=time_of(definition.date).isoformat(),
        date_unix=definition.date,
        age_s=runtime.now().timestamp() - definition.date,
        frees_bytes=frees_bytes,
        uuid=definition.domain_uuid,
        host=definition.host,
        version=definition.version,
        packager=definition.packager.type,
        domain_state=definition.state,
        method=definition.method,
        quiesced=definition.quiesced,
        not_quiesced=definition.not_quiesced,
        frozen_ms=definition.frozen_ms,
        pinned=definition.pinned,
        note=definition.note,
        copied_from=definition.copied_from.target if definition.copied_from else None,
        sequence=definition.sequence,
        definition_hash=definition.hash,
        verified_date=time_of(verified.date).isoformat() if verified else None,
        verified_error=verified.error if verified else None,
        has_digests=bool(definition.images),
        disks=tuple(
            _disk(dev, file, definition.records.get(dev)) for dev, file in definition.disks.items()
        ),
        state_files=tuple(_image(state.kind, state.image) for state in definition.state_files),
        skipped=tuple(_lacks(named, definition)),
        commands=tuple(_commands(runtime.config, named)),
    )


def _broken(runtime: Runtime, named: NamedBackup) -> events.ShownBackup:
    date = date_of_name(named.name)
    return events.ShownBackup(
        group=named.group,
        domain=named.domain,
        backup=named.name,
        definition=str(named.path),
        target=str(named.target),
        state=str(BackupState.BROKEN),
        date=None if date is None else time_of(date).isoformat(),
        date_unix=date,
        age_s=None if date is None else runtime.now().timestamp() - date,
        error=named.problem.reason if named.problem else None,
        commands=tuple(_commands_for_broken(runtime.config, named)),
    )


def _disk(dev: str, file: str, record: DiskRecord | None) -> events.ShownDisk:
    if record is None:
        return events.ShownDisk(dev, file)
    image, reading = record.image, record.reading
    was = record.original_format
    return events.ShownDisk(
        disk=dev,
        file=file,
        source=image.source,
        format=image.format,
        original_format=None if was == image.format else was,
        size_bytes=image.size_bytes,
        data_bytes=image.data_bytes,
        read_bytes=image.data_bytes if reading is None else reading.read_bytes,
        stored_bytes=image.stored_bytes,
        digest=image.digest,
        base=reading.base if reading else None,
        reason=reading.reason if reading else None,
        audited_bytes=reading.audited_bytes if reading else 0,
        audit_failed=reading.audit_failed if reading else False,
        checkpoint=reading.checkpoint if reading else None,
        backing=tuple(_image("backing", below) for below in record.backing),
    )


def _image(what: str, image: ImageRecord) -> events.ShownImage:
    return events.ShownImage(
        what,
        image.file,
        image.source,
        image.format,
        image.size_bytes,
        image.data_bytes,
        image.stored_bytes,
        image.digest,
    )


def _lacks(named: NamedBackup, definition: Definition) -> Iterator[events.ShownLack]:
    """Yield everything that is not in the backup, even if it holds no data of the domain's own."""
    missed = list(find_lacks(definition, named.guest.backups))
    for lack in missed:
        yield events.ShownLack(
            lack.what, lack.reason, lack.older.definition.name if lack.older else None
        )
    known = {lack.what for lack in missed}
    for what, reason in definition.skipped.items():
        if what not in known:
            yield events.ShownLack(what, reason)


def _commands(config: Config, named: NamedBackup) -> Iterator[str]:
    backup = exact_name(config, named.group, named.word, named.name)
    yield command_line(config, "restore", backup, _DIRECTORY)
    yield command_line(config, "restore", backup, _DIRECTORY, "--define", "--start")
    yield command_line(config, "restore", backup, "--in-place")
    if named.found is not None:
        for dev in list(named.found.definition.disks)[:1]:
            yield command_line(config, "export", backup, dev, f"{dev}.qcow2")


def _commands_for_broken(config: Config, named: NamedBackup) -> Iterator[str]:
    backup = exact_name(config, named.group, named.word, named.name)
    if named.problem is not None and named.problem.may_be_trusted:
        yield command_line(config, "restore", backup, _DIRECTORY, TRUST_OPTION)
    if not config.of_target:
        yield command_line(config, "forget", backup)
