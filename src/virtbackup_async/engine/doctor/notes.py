"""This host's own notes of what is to be undone: whether they can be kept, and which are left."""

import os
from pathlib import Path

from anyio import to_thread

from virtbackup_async.catalog.host_notes import Note, Notes
from virtbackup_async.engine.host_state import Host
from virtbackup_async.engine.locks import is_held
from virtbackup_async.errors import StorageError
from virtbackup_async.events import Finding, Level

CHECK = "leftover"


async def check_notes(host: Host, lock_directory: Path) -> tuple[Notes, list[Finding]]:
    """Return the notes, and what is wrong: with the directory, or with a note by itself.

    What has its pending file still is told by that.
    """
    subject = str(host.notes.state_directory)
    try:
        notes = await host.read_notes()
    except StorageError as error:
        finding = Finding(Level.PROBLEM, CHECK, subject, error.message, error.hint)
        return Notes(()), [finding]
    advice = "See what became of the domain, then remove the note."
    findings = [
        Finding(Level.PROBLEM, CHECK, subject, f"a note cannot be read: {problem}", advice)
        for problem in notes.problems
    ]
    forgotten = await to_thread.run_sync(_without_pending_file, notes)
    findings += [await _judge(note, lock_directory) for note in forgotten]
    return notes, findings


def _without_pending_file(notes: Notes) -> list[Note]:
    return [note for note in notes.notes if not os.path.lexists(note.pending_path)]


async def _judge(note: Note, lock_directory: Path) -> Finding:
    """Tell a backup that begins or ends this very moment from one that was killed."""
    pending = note.pending
    message = f"backup {pending.name} into {note.pending_path.parent} was begun on this host"
    is_running = await to_thread.run_sync(is_held, lock_directory, pending.domain_uuid or "")
    if is_running:
        return Finding(Level.INFO, CHECK, pending.domain_name, f"{message}, and runs")
    message += " and killed, and its pending file is gone"
    advice = "Run `virtbackup clean -b` to undo it."
    return Finding(Level.PROBLEM, CHECK, pending.domain_name, message, advice)
