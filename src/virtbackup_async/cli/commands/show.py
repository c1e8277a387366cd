"""``virtbackup show``: all that is known of one backup."""

import click

from virtbackup_async.cli.completion import names_of_backups
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, target_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("show")
@click.argument("backup", metavar="DOMAIN[@DATE]", shell_complete=names_of_backups)
@target_option
@shared_options
def command(settings: Settings, backup: str) -> None:
    """Show all that is known of one backup, and the commands that restore it.

    Without a date, of the newest backup of DOMAIN. "frees" is the space that removing it alone
    frees.
    """
    run_with_config(settings, lambda vb: vb.show(backup), reports.show)
