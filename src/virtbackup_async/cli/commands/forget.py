"""``virtbackup forget``: remove the backups that are named."""

from functools import partial

import click

from virtbackup_async.cli.completion import names_of_backups
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, wait_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("forget")
@click.argument(
    "backups", metavar="DOMAIN@DATE...", nargs=-1, required=True, shell_complete=names_of_backups
)
@click.option("--dry-run", is_flag=True, help="Show what would go, and what that frees.")
@click.option("--unpin", is_flag=True, help="Remove pinned backups too.")
@click.option(
    "--allow-newest", is_flag=True, help="Remove also the newest good backup of a domain."
)
@wait_option
@shared_options
def command(  # noqa: PLR0913 -- one for each option
    settings: Settings,
    backups: tuple[str, ...],
    *,
    dry_run: bool,
    unpin: bool,
    allow_newest: bool,
    wait_s: float,
) -> None:
    """Remove single backups, and free the space that no other backup needs.

    DOMAIN@DATE is a domain and a date, as "list" prints them: web@2026-11-27, web@latest. A backup
    that is broken can be removed too. If one of them may not go, none goes.
    """
    is_silent = settings.quiet and not dry_run
    report = None if is_silent else partial(reports.clean, dry_run=dry_run)
    run_with_config(
        settings,
        lambda vb: vb.forget(
            backups, unpin=unpin, allow_newest=allow_newest, dry_run=dry_run, wait_s=wait_s
        ),
        report,
        reports_as=None if dry_run else "forget",
    )
