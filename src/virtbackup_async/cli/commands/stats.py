"""``virtbackup stats``: how much the backups hold, and how much they take."""

import click

from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, groups_argument, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("stats")
@groups_argument
@click.option(
    "-b",
    "--backups",
    "each_backup",
    is_flag=True,
    help="Show each backup too, and what its removal would free.",
)
@shared_options
def command(settings: Settings, groups: tuple[str, ...], *, each_backup: bool) -> None:
    """Say how much the backups of groups hold, and how much they take.

    Without a GROUP, of all groups in the configuration. The ratio is that of data to what was
    stored of it: by compression, and in a repository by storing once what is equal. What was added
    by day is that of the backups that are still there.
    """
    run_with_config(settings, lambda vb: vb.stats(groups, each_backup=each_backup), reports.stats)
