"""``virtbackup list``: show the backups of groups."""

from functools import partial

import click

from virtbackup_async.cli.completion import domain_names, group_names
from virtbackup_async.cli.configured import configured
from virtbackup_async.cli.options import EXIT_STATUSES, Command, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import run
from virtbackup_async.cli.settings import Settings


@click.command("list", cls=Command, epilog=EXIT_STATUSES)
@click.argument("groups", metavar="[GROUP]...", nargs=-1, shell_complete=group_names)
@click.option(
    "-D",
    "--domain",
    "domains",
    metavar="DOMAIN",
    shell_complete=domain_names,
    multiple=True,
    help="Show this domain's backups with their files; may be repeated.",
)
@click.option("-a", "--all", "show_all", is_flag=True, help="Also show domains without a backup.")
@click.option("-s", "--short", is_flag=True, help="Show counts only.")
@shared_options
def command(
    settings: Settings,
    groups: tuple[str, ...],
    domains: tuple[str, ...],
    *,
    show_all: bool,
    short: bool,
) -> None:
    """List the backups of groups.

    Without a GROUP, of all groups in the configuration.
    """
    job = configured(
        settings.config_path, lambda vb: vb.list(groups, domains=domains, with_known=show_all)
    )
    run(settings, job, partial(reports.listing, short=short, detailed=bool(domains)))
