"""``virtbackup clean``: apply the retention rules, and undo killed backups."""

from functools import partial

import click

from virtbackup_async.cli.arguments import groups_argument
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, wait_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("clean")
@groups_argument
@click.option(
    "-b", "--broken-only", is_flag=True, help="Only undo killed backups; remove no other."
)
@click.option("-B", "--no-broken", is_flag=True, help="Leave killed backups alone.")
@click.option(
    "--dry-run", is_flag=True, help="Show what would stay or go, and why; change nothing."
)
@click.option(
    "--drop-damaged",
    is_flag=True,
    help='Also remove backups that "verify" found damaged, if a newer one of the domain is good.',
)
@click.option(
    "--accept",
    "accepted",
    metavar="BACKUP",
    multiple=True,
    help="Accept that the guest's data changed suddenly in this backup, and clean. Repeatable.",
)
@wait_option
@shared_options
def command(  # noqa: PLR0913 -- one for each option
    settings: Settings,
    groups: tuple[str, ...],
    *,
    broken_only: bool,
    no_broken: bool,
    dry_run: bool,
    drop_damaged: bool,
    accepted: tuple[str, ...],
    wait_s: float,
) -> None:
    """Remove the backups that no retention rule keeps, and undo killed ones.

    Without a GROUP, of all groups in the configuration. The newest good backup of a domain and
    pinned ones always stay. A backup that "verify" found damaged counts for no rule. If a guest's
    data changed suddenly, as by ransomware, its backups from before that stay until you accept it.
    """
    if broken_only and no_broken:
        raise click.UsageError("-b and -B exclude each other")
    if broken_only and drop_damaged:
        raise click.UsageError("-b and --drop-damaged exclude each other")
    if dry_run and accepted:
        raise click.UsageError("--dry-run changes nothing, so it excludes --accept")
    is_silent = settings.quiet and not dry_run
    report = None if is_silent else partial(reports.clean, dry_run=dry_run)
    run_with_config(
        settings,
        lambda vb: vb.clean(
            groups,
            broken=not no_broken,
            complete=not broken_only,
            dry_run=dry_run,
            drop_damaged=drop_damaged,
            wait_s=wait_s,
            accepted=accepted,
        ),
        report,
        reports_as=None if dry_run else "clean",
    )
