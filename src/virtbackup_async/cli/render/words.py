"""Events as sentences, for the renderers that write lines. Not yet safe to print: see ``text``."""

from virtbackup_async.cli.render.text import count, duration, size
from virtbackup_async.events import (
    BackupDone,
    BackupFailed,
    BackupStarted,
    DiskDone,
    DiskSkipped,
    Event,
    PhaseChanged,
    RestoreDone,
    RestoreStarted,
    RunStarted,
    Warned,
)


def in_words(event: Event) -> str | None:  # noqa: PLR0911 -- one return a kind of event
    """An event as one sentence; None for those that only move something on a screen."""
    match event:
        case RunStarted():
            return f"{event.command}: {count(len(event.domains), 'domain')}"
        case BackupStarted():
            return f"{event.domain}: backup started: {event.backup} ({', '.join(event.disks)})"
        case PhaseChanged():
            return f"{_place(event.domain, event.disk)}: {event.phase}"
        case DiskDone():
            data = f"{size(event.data_bytes)} of data in {size(event.size_bytes)}"
            return f"{event.domain} {event.disk}: done: {data}"
        case DiskSkipped():
            return f"{event.domain} {event.disk}: skipped: {event.reason}"
        case Warned():
            return f"{_place('warning', event.domain)}: {event.message}"
        case _:
            return _end_in_words(event)


def _end_in_words(event: Event) -> str | None:
    match event:
        case BackupDone():
            return f"{event.domain}: backup done: {_amount(event)}"
        case BackupFailed():
            word = "cancelled" if event.cancelled else "failed"
            left = " (left pending)" if event.left_pending else ""
            return f"{event.domain}: backup {word}{left}: {reason(event)}"
        case RestoreStarted():
            return f"{event.domain}: restoring {event.backup} to {event.target}"
        case RestoreDone():
            amount = f"{size(event.data_bytes)} in {duration(event.duration_s)}"
            return f"{event.domain}: restored: {amount}"
        case _:
            return None


def reason(failed: BackupFailed) -> str:
    """Why a backup failed; most errors begin with the domain, which the line has said already."""
    return failed.error.removeprefix(f"{failed.domain}: ")


def _place(first: str, second: str | None) -> str:
    return f"{first} {second}" if second else first


def _amount(done: BackupDone) -> str:
    moved = (
        f"{size(done.data_bytes)} in {duration(done.duration_s)}, {size(done.stored_bytes)} stored"
    )
    frozen = "" if done.frozen_ms is None else f", frozen for {done.frozen_ms} ms"
    return moved + frozen
