"""Events as sentences, for renderers that write lines; ``text.printable`` makes them safe."""

from collections import Counter
from collections.abc import Sequence

from virtbackup_async import events
from virtbackup_async.model.amounts import duration, size
from virtbackup_async.model.heads import head_of
from virtbackup_async.reporting.text import count

NAMES_SHOWN = 8


def in_words(event: events.Event) -> str | None:  # noqa: PLR0911 -- one return for each kind of event
    """Return an event as one sentence; None for progress and for events of reports."""
    match event:
        case events.RunStarted():
            # `repair` works on repositories.
            amount = count(len(event.domains), "domain")
            return None if event.command == "repair" else f"{event.command}: {amount}"
        case events.BackupStarted():
            return f"{event.domain}: backup started: {event.backup} ({', '.join(event.disks)})"
        case events.PhaseChanged():
            return f"{_place(event.domain, event.disk)}: {event.phase}"
        case events.DiskDone():
            data = f"{size(event.data_bytes)} of data in {size(event.size_bytes)}"
            return f"{event.domain} {event.disk}: done: {data}{_how_read(event)}"
        case events.DiskSkipped():
            return f"{event.domain} {event.disk}: skipped: {event.reason}"
        case events.Warned():
            return f"{_place('warning', event.domain)}: {event.message}"
        case _:
            return _end_in_words(event)


def _end_in_words(event: events.Event) -> str | None:
    match event:
        case events.BackupDone():
            return f"{event.domain}: backup done: {_amount(event)}"
        case events.BackupFailed():
            return f"{event.domain}: {_failed(event)}"
        case events.RestoreStarted():
            return f"{event.domain}: restoring {event.backup} to {event.target}"
        case events.RestoreDone():
            amount = f"{size(event.data_bytes)} in {duration(event.duration_s)}"
            return f"{event.domain}: restored: {amount}"
        case _:
            return _moment_in_words(event) or _copy_in_words(event)


def _moment_in_words(event: events.Event) -> str | None:
    match event:
        case events.HookStarted():
            return f"{hook_name(event)}: started"
        case events.HookEnded():
            return f"{hook_name(event)}: ended after {duration(event.duration_s)}"
        case events.HookFailed():
            return event.error
        case events.DisksHeld(frozen_ms=int()):
            # Of a guest that was not frozen, a warning has the reason.
            return f"{event.domain}: guest thawed after {event.frozen_ms} ms"
        case events.StoreRequests():
            return f"{event.target}: {_requests(event)}"
        case _:
            return None


def _requests(made: events.StoreRequests) -> str:
    """Return the requests by verb, most first, and the bytes."""
    by_verb: Counter[str] = Counter()
    for one in made.kinds:
        by_verb[one.verb] += one.requests
    verbs = ", ".join(f"{number} {verb}" for verb, number in by_verb.most_common())
    amount = f"{size(made.sent_bytes)} sent, {size(made.received_bytes)} received"
    return f"{count(made.requests, 'request')} ({verbs}), {amount}"


def hook_name(event: events.HookStarted | events.HookEnded) -> str:
    """Return ``hook before of group main``; a hook of the run has no group."""
    return f"hook {event.hook}{f' of group {event.group}' if event.group else ''}"


def _copy_in_words(event: events.Event) -> str | None:
    match event:
        case events.CopyStarted():
            return f"{event.domain}: copying {event.backup} to {event.target}"
        case events.CopyDone():
            return f"{event.domain}: copied {event.backup} to {event.target}: {copied(event)}"
        case events.CopySkipped():
            return f"{event.domain}: {event.backup}: not copied: {event.reason}"
        case events.CopyFailed():
            of = f" of {event.backup}" if event.backup else ""
            return f"{event.domain}: copy{of} to {event.target} {copy_failed(event)}"
        case _:
            return _verify_in_words(event)


def copied(done: events.CopyDone) -> str:
    """Return how much a copy moved."""
    skipped = f" ({size(done.skipped_bytes)} were there)" if done.skipped_bytes else ""
    moved = f"{size(done.data_bytes)}{skipped} in {duration(done.duration_s)}"
    return f"{moved}, {size(done.stored_bytes)} stored"


def copy_failed(failed: events.CopyFailed) -> str:
    """Return what became of a copy that failed, with the reason."""
    if failed.cancelled and not failed.left_pending:
        return "interrupted and undone"
    left = " (left pending)" if failed.left_pending else ""
    return f"failed{left}: {failed.error}"


def _verify_in_words(event: events.Event) -> str | None:
    match event:
        case events.DiskExported():
            to = "standard output" if event.output == "-" else event.output
            return f"{event.domain}: {event.disk} exported to {to}"
        case events.DomainDefined():
            return f"{event.domain}: {'defined and started' if event.started else 'defined'}"
        case events.VerifyStarted():
            return f"{event.domain}: verifying {event.backup}"
        case events.VerifyDone():
            amount = f"{size(event.data_bytes)} in {duration(event.duration_s)}"
            return f"{event.domain}: {event.backup}: {found_good(event)}: {amount}"
        case events.VerifyFailed():
            return f"{event.domain}: {event.backup}: FAILED: {event.error}"
        case _:
            return _served_in_words(event) or _damage_in_words(event)


def _served_in_words(event: events.Event) -> str | None:
    match event:
        case events.BackupServed():
            uris = ", ".join(f"{one.disk} at {one.uri}" for one in event.disks)
            return f"{event.domain}: serving {event.backup}: {uris}"
        case events.RangeUnreadable():
            where = f"{size(event.length_bytes)} at byte {event.offset}"
            return f"{event.domain}: {event.disk}: {where} UNREADABLE: {event.error}"
        case _:
            return None


def _damage_in_words(event: events.Event) -> str | None:
    match event:
        case events.DiskDamaged():
            where = f"{event.domain}: {event.backup}: {event.disk}"
            return f"{where}: {size(event.lost_bytes)} lost in {_ranges(event)}"
        case events.RepositoryDamaged():
            return f"{event.target}: repository: {_damage(event)}"
        case events.RepositoryChecked():
            return f"{event.target}: repository: {_checked(event)}"
        case events.RepositoryRepaired():
            return f"{event.target}: repository: {_repaired(event)}"
        case _:
            return clean_in_words(event)


def clean_in_words(event: events.Event) -> str | None:
    """Return what ``clean``, ``pin``, ``unpin`` and ``accept`` did, or could not do."""
    match event:
        case events.BackupRemoved():
            return f"{event.domain}: removed {event.backup}: {size(event.freed_bytes)} freed"
        case events.PendingUndone():
            return f"{event.domain}: undone: {event.backup}"
        case events.PendingLeft() | events.RemovalFailed():
            word = "left for now" if event.in_use else "NOT CLEANED"
            return f"{event.domain}: {event.backup}: {word}: {event.error}"
        case events.RepositorySwept() | events.LocksExtended():
            return _kept_in_words(event)
        case (
            events.CleanStopped()
            | events.ChangeAccepted()
            | events.PinChanged()
            | events.TargetAccepted()
        ):
            return f"{event.domain}: {_judged_in_words(event)}"
        case _:
            return None


def _judged_in_words(
    event: events.CleanStopped | events.ChangeAccepted | events.PinChanged | events.TargetAccepted,
) -> str:
    match event:
        case events.TargetAccepted():
            return _accepted_in_words(event)
        case events.CleanStopped():
            return _stopped_in_words(event)
        case events.ChangeAccepted():
            return f"{event.backup}: its sudden change is accepted"
        case events.PinChanged():
            return f"{event.backup}: {'pinned' if event.pinned else 'not pinned'}"


def _stopped_in_words(stopped: events.CleanStopped) -> str:
    why = f"STOPPED: in backup {stopped.backup}, {stopped.reason}"
    kept = f"{count(stopped.kept, 'backup')} from before it kept" if stopped.kept else "all kept"
    return f"{why}; {kept}. {stopped.advice}"


def _accepted_in_words(accepted: events.TargetAccepted) -> str:
    would = "would be accepted" if accepted.dry_run else "accepted"
    if accepted.sequence is None:
        return f"{would} in {accepted.target}: no backup"
    head = head_of(accepted.sequence, accepted.definition_hash or "")
    return f"{would} in {accepted.target}: {accepted.backup} ({head})"


def _kept_in_words(event: events.RepositorySwept | events.LocksExtended) -> str:
    if isinstance(event, events.LocksExtended):
        return f"{event.target}: {count(event.objects, 'object')} locked until {event.until}"
    return _swept_in_words(event)


def _swept_in_words(swept: events.RepositorySwept) -> str:
    freed = f"{size(swept.freed_bytes)} freed"
    copied = f", {size(swept.rewritten_bytes)} repacked" if swept.rewritten_bytes else ""
    later = f", {size(swept.waiting_bytes)} when running backups end" if swept.waiting_bytes else ""
    short = (
        f", no space to repack {size(swept.unrewritten_bytes)}" if swept.unrewritten_bytes else ""
    )
    left = f"{size(swept.stored_bytes)} left"
    return f"{swept.target}: repository: {freed}{copied}{later}{short}, {left}"


def found_good(done: events.VerifyDone) -> str:
    """Return the result of a backup without damage."""
    lacks = f", LACKS {', '.join(done.lacks)}" if done.lacks else ""
    if done.quick:
        return f"complete, {'read in part' if done.partly else 'not read'}{lacks}"
    return f"good{lacks}" if done.digests else f"readable, no digest{lacks}"


def _ranges(damaged: events.DiskDamaged) -> str:
    return count(len(damaged.ranges) + damaged.more_ranges, "range")


def _damage(damaged: events.RepositoryDamaged) -> str:
    costs = f" ({count(damaged.chunks, 'chunk')})" if damaged.chunks else ""
    return f"{damaged.error}{costs}"


def _repaired(done: events.RepositoryRepaired) -> str:
    facts = (
        (done.dropped_chunks, "damaged chunk", "removed from the index"),
        (
            done.left_chunks,
            "damaged chunk",
            "left, of a running backup: repair again when it has ended",
        ),
        (done.indexed_chunks, "chunk", "put back into the index"),
        (done.removed_segments, "damaged segment", "removed"),
        (done.mended_heads, "header", "of packs rewritten"),
        (done.waiting_maps, "image", "still incomplete: `verify` says which"),
    )
    words = [f"{count(number, noun)} {done_so}" for number, noun, done_so in facts if number]
    return ", ".join(words) or "nothing to repair"


def _checked(done: events.RepositoryChecked) -> str:
    bad = f", {done.damaged_chunks} DAMAGED" if done.damaged_chunks else ""
    if 0 < done.read_bytes < done.stored_bytes:
        share = f"{size(done.read_bytes)} of {size(done.stored_bytes)}"
        read = f"{done.read_chunks} of {count(done.chunks, 'chunk')} read, at random"
        there = "" if done.damaged_chunks else "; all packs are there"
        return f"{read}{bad}: {share} in {duration(done.duration_s)}{there}"
    amount = f"{size(done.stored_bytes)} in {duration(done.duration_s)}"
    return f"{count(done.chunks, 'chunk')} checked{bad}: {amount}"


def reason(failed: events.BackupFailed) -> str:
    """Return why a backup failed, for a line that already names the domain."""
    return failed.reason or failed.error


def _failed(event: events.BackupFailed) -> str:
    if event.cancelled and not event.left_pending:
        return "backup interrupted and undone"
    word = "interrupted" if event.cancelled else "failed"
    left = " (left pending)" if event.left_pending else ""
    return f"backup {word}{left}: {reason(event)}"


def _place(first: str, second: str | None) -> str:
    return f"{first} {second}" if second else first


def _how_read(done: events.DiskDone) -> str:
    """Return how much of a disk was read, if its changes alone might have been enough."""
    if done.base is not None:
        return f", {size(done.read_bytes or 0)} read: what changed since {done.base}"
    return f", read in full: {done.reason}" if done.reason else ""


def _amount(done: events.BackupDone) -> str:
    read = f" ({size(done.read_bytes)} read)" if done.read_bytes < done.data_bytes else ""
    moved = (
        f"{size(done.data_bytes)}{read} in {duration(done.duration_s)}, "
        f"{size(done.stored_bytes)} stored"
    )
    frozen = "" if done.frozen_ms is None else f", frozen for {done.frozen_ms} ms"
    return moved + frozen


def some_of(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    shown = ", ".join(names[:NAMES_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def unclaimed_in_words(event: events.UnclaimedBackups) -> str:
    """Return the backups of domains in no group, in one line."""
    whose = some_of(event.domains)
    return f"{event.target}: no group means {whose}: {count(event.backups, 'backup')} left alone"


def not_counted_in_words(
    event: events.BrokenBackup | events.TargetUnreadable | events.UnclaimedBackups,
) -> str:
    """Return what is, or may be, in a target and is not among the shown backups."""
    match event:
        case events.BrokenBackup():
            return f"{event.domain}  {event.backup}  BROKEN: {event.error}"
        case events.TargetUnreadable():
            return f"{event.group}: TARGET NOT READABLE: {event.error}"
        case events.UnclaimedBackups():
            return unclaimed_in_words(event)
