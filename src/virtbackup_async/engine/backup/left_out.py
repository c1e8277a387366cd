"""Saying what of a domain its backup will not hold, before it is made."""

from virtbackup_async.engine.backup.selection import IN_PLAIN_TEXT, Selection
from virtbackup_async.engine.backup.state_files import missing
from virtbackup_async.events import DiskSkipped, Emit, Warned


def tell_left_out(emit: Emit, domain: str, selection: Selection) -> None:
    """Say what the backup will not hold, and what it will not hold as it is."""
    for skipped in selection.left_out:
        emit(DiskSkipped(domain, skipped.dev, skipped.reason))
    for kind, reason in selection.state.missing.items():
        emit(missing(domain, kind, reason))
    for disk in selection.broken:
        error = str(disk.error).removeprefix(f"{domain}: ")
        emit(Warned(f"{disk.dev} will not be in the backup: {error}", domain))
    for dev in selection.in_plain_text:
        emit(Warned(f"{dev} {IN_PLAIN_TEXT}", domain))
