"""``virtbackup stats``: how much the backups hold, and how much they take."""

import click

from virtbackup_async.cli.completion import group_names
from virtbackup_async.cli.configured import configured
from virtbackup_async.cli.options import EXIT_STATUSES, Command, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import run
from virtbackup_async.cli.settings import Settings


@click.command("stats", cls=Command, epilog=EXIT_STATUSES)
@click.argument("groups", metavar="[GROUP]...", nargs=-1, shell_complete=group_names)
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
    job = configured(settings.config_path, lambda vb: vb.stats(groups, each_backup=each_backup))
    run(settings, job, reports.stats)
