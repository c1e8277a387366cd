"""``virtbackup list``: show the backups of groups."""

from functools import partial

import click

from virtbackup_async.api.virtbackup import VirtBackup
from virtbackup_async.cli.arguments import domains_option, words_argument
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, target_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config
from virtbackup_async.reporting.reports.listing import SORTS


@subcommand("list")
@words_argument
@domains_option("Show this domain's backups with their files; may be repeated.")
@click.option("-a", "--all", "show_all", is_flag=True, help="Also show domains without a backup.")
@click.option("-s", "--short", is_flag=True, help="Show counts only.")
@click.option(
    "--sort",
    type=click.Choice(list(SORTS)),
    default="name",
    help="Sort the domains: by name, or the worst, oldest or largest first.",
)
@click.option(
    "--since", metavar="AGE|DATE", help="Only backups of the last 12h, 7d or 4w, or since a date."
)
@click.option("--latest", is_flag=True, help="Only the newest good backup of each domain.")
@target_option
@shared_options
def command(  # noqa: PLR0913 -- one for each option
    settings: Settings,
    groups: tuple[str, ...],
    domains: tuple[str, ...],
    *,
    show_all: bool,
    short: bool,
    sort: str,
    since: str | None,
    latest: bool,
) -> None:
    """List the domains of groups, each with its newest good backup; or the backups of domains.

    Without a GROUP, of all groups in the configuration. With --latest, --since or a DOMAIN, a row
    for each backup.
    """
    of_domains = bool(domains or since or latest)

    async def work(vb: VirtBackup) -> None:
        nonlocal of_domains
        of_domains = of_domains or not set(groups) <= vb.config.groups.keys()
        await vb.list(groups, domains=domains, with_known=show_all, since=since, latest=latest)

    report = partial(
        reports.listing,
        short=short,
        detailed=bool(domains),
        by_domain=lambda: not of_domains,
        sort=sort,
    )
    run_with_config(settings, work, report)
