"""``virtbackup diff``: how much changed between two backups."""

import click

from virtbackup_async.cli.completion import names_of_backups
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, target_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("diff")
@click.argument("older", metavar="DOMAIN@DATE", shell_complete=names_of_backups)
@click.argument("newer", metavar="DOMAIN[@DATE]", shell_complete=names_of_backups)
@target_option
@shared_options
def command(settings: Settings, older: str, newer: str) -> None:
    """Show how much of each disk changed between two backups of a domain.

    Counts blocks of 256 KiB. In a repository that takes moments; other packages are read, unless
    their digests are equal.
    """
    run_with_config(settings, lambda vb: vb.diff(older, newer), reports.diff)
