"""``virtbackup list``: show the backups of groups."""

from functools import partial

import click

from virtbackup_async.cli.arguments import domains_option, words_argument
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, target_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("list")
@words_argument
@domains_option("Show this domain's backups with their files; may be repeated.")
@click.option("-a", "--all", "show_all", is_flag=True, help="Also show domains without a backup.")
@click.option("-s", "--short", is_flag=True, help="Show counts only.")
@target_option
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

    Without a GROUP, of all groups in the configuration. With a DOMAIN, its backups alone.
    """
    report = partial(reports.listing, short=short, detailed=bool(domains))
    run_with_config(
        settings, lambda vb: vb.list(groups, domains=domains, with_known=show_all), report
    )
