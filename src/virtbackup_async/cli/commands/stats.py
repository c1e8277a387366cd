"""``virtbackup stats``: how much data the backups hold, and how much space they take."""

import click

from virtbackup_async.cli.arguments import groups_argument
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, target_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("stats")
@groups_argument
@click.option(
    "-b",
    "--backups",
    "each_backup",
    is_flag=True,
    help="Show each backup as well, and what its removal would free.",
)
@target_option
@shared_options
def command(settings: Settings, groups: tuple[str, ...], *, each_backup: bool) -> None:
    """Show how much data the backups of groups hold, and how much space they take.

    Without a GROUP, of all groups in the configuration. The ratio is that of the data to its stored
    size, after compression, and in a repository with equal data stored once. The amounts added by
    day are those of the backups that still exist.
    """
    run_with_config(settings, lambda vb: vb.stats(groups, each_backup=each_backup), reports.stats)
