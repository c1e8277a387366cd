"""``virtbackup accept``: take a target as it is for what this host has seen in it."""

import click

from virtbackup_async.cli.completion import groups_and_domains
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("accept")
@click.argument(
    "words", metavar="GROUP|DOMAIN...", nargs=-1, required=True, shell_complete=groups_and_domains
)
@click.option("--dry-run", is_flag=True, help="Show what would be accepted.")
@shared_options
def command(settings: Settings, words: tuple[str, ...], *, dry_run: bool) -> None:
    """Accept that a target is older than this host has seen it, or was changed.

    Every host remembers the newest backups in its targets, and commands warn if these are missing
    or others. If you know why, because you restored the target from a copy of it or removed backups
    on another host, this ends the warnings. Nothing in the target changes.
    """
    report = None if settings.quiet and not dry_run else reports.pins
    run_with_config(settings, lambda vb: vb.accept(words, dry_run=dry_run), report)
