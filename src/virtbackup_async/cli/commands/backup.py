"""``virtbackup backup``: back up the domains of groups, or single domains."""

from dataclasses import replace

import click

from virtbackup_async.cli.arguments import words_argument
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, wait_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("backup")
@words_argument
@click.option("--note", metavar="TEXT", help="A line to remember, which the backup keeps.")
@click.option("--pin", is_flag=True, help="Keep the new backups from being cleaned.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only show what would be read, how and why, and whether it fits; touch nothing.",
)
@click.option(
    "--allow-empty", is_flag=True, help="Exit with 0 also if there is nothing to back up."
)
@wait_option
@shared_options
def command(  # noqa: PLR0913 -- one for each option
    settings: Settings,
    groups: tuple[str, ...],
    *,
    note: str | None,
    pin: bool,
    dry_run: bool,
    allow_empty: bool,
    wait_s: float,
) -> None:
    """Back up the domains of groups, or single domains as their group says.

    Without a GROUP or DOMAIN, all groups that have "autostart" in the configuration. A domain in
    several groups is named GROUP/DOMAIN.
    """
    if dry_run:
        run_with_config(
            replace(settings, progress=False),
            lambda vb: vb.preview(groups, allow_empty=allow_empty),
            reports.preview,
        )
    run_with_config(
        settings,
        lambda vb: vb.backup(
            groups,
            wait_s=wait_s,
            allow_empty=allow_empty,
            note=note,
            pin=pin,
            estimate=settings.progress and not settings.quiet,
        ),
        None if settings.quiet else reports.backup,
        reports_as="backup",
    )
