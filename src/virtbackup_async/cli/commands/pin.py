"""``virtbackup pin`` and ``unpin``: keep a backup from being cleaned, or no longer."""

from virtbackup_async.cli.arguments import one_backup
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, backup_of, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("pin")
@one_backup(or_earlier=False)
@shared_options
def pin(settings: Settings, words: tuple[str, ...], date: str | None) -> None:
    """Keep a backup of DOMAIN from being cleaned, whatever its age.

    The pin is part of the backup's definition. "list" shows it; "unpin" removes it.
    """
    report = None if settings.quiet else reports.pins
    backup = backup_of(words, date)
    run_with_config(settings, lambda vb: vb.pin(*backup.words), report)


@subcommand("unpin")
@one_backup(or_earlier=False)
@shared_options
def unpin(settings: Settings, words: tuple[str, ...], date: str | None) -> None:
    """Let a pinned backup of DOMAIN be cleaned again when no rule keeps it."""
    report = None if settings.quiet else reports.pins
    backup = backup_of(words, date)
    run_with_config(settings, lambda vb: vb.unpin(*backup.words), report)
