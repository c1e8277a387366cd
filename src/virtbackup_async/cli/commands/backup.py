"""``virtbackup backup``: back up the domains of groups."""

import click

from virtbackup_async.cli.arguments import groups_argument
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, wait_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("backup")
@groups_argument
@click.option(
    "--allow-empty", is_flag=True, help="Exit with 0 also if there is nothing to back up."
)
@wait_option
@shared_options
def command(
    settings: Settings, groups: tuple[str, ...], *, allow_empty: bool, wait_s: float
) -> None:
    """Back up the domains of groups.

    Without a GROUP, of all groups that have "autostart" in the configuration.
    """
    report = None if settings.quiet else reports.run
    run_with_config(
        settings,
        lambda vb: vb.backup(groups, wait_s=wait_s, allow_empty=allow_empty),
        report,
        reports_as="backup",
    )
