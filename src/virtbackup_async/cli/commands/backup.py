"""``virtbackup backup``: back up the domains of groups."""

import click

from virtbackup_async.cli.completion import group_names
from virtbackup_async.cli.configured import configured
from virtbackup_async.cli.options import EXIT_STATUSES, Command, shared_options, wait_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import run
from virtbackup_async.cli.settings import Settings


@click.command("backup", cls=Command, epilog=EXIT_STATUSES)
@click.argument("groups", metavar="[GROUP]...", nargs=-1, shell_complete=group_names)
@click.option(
    "--allow-empty", is_flag=True, help="End with 0 also if there was nothing to back up."
)
@wait_option
@shared_options
def command(
    settings: Settings, groups: tuple[str, ...], *, allow_empty: bool, wait_s: float
) -> None:
    """Back up the domains of groups.

    Without a GROUP, of all groups that have "autostart" in the configuration.
    """
    job = configured(
        settings.config_path,
        lambda vb: vb.backup(groups, wait_s=wait_s, allow_empty=allow_empty),
        reports_as="backup",
    )
    run(settings, job, None if settings.quiet else reports.run)
