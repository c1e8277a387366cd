"""``virtbackup verify``: read backups and compare them with their digests."""

from functools import partial

import click

from virtbackup_async.cli.arguments import domains_option
from virtbackup_async.cli.completion import names_of_backups
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, target_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("verify")
@click.argument(
    "groups",
    metavar="[GROUP|DOMAIN[@DATE]]...",
    nargs=-1,
    shell_complete=names_of_backups,
)
@domains_option("Verify this domain's backups alone; may be repeated.")
@click.option(
    "--newer-than",
    metavar="AGE|DATE",
    help="Only backups made in the last 12h, 7d or 4w, or since a date.",
)
@click.option(
    "--not-verified-since",
    metavar="AGE|DATE",
    help="Skip backups that were found good in the last 12h, 7d or 4w, or since a date.",
)
@click.option(
    "--sample",
    metavar="N|PERCENT",
    help="Of all those, only 5 or 10%, a new choice every day.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Read no data: only check that all files and chunks exist, with the right length.",
)
@click.option(
    "--read-data",
    metavar="PERCENT|SIZE|all",
    help="How much of the data to read, chosen at random: 2%, 10GiB, all. Usual: all in a "
    "directory, 2% elsewhere.",
)
@click.option(
    "--without-key",
    is_flag=True,
    help="Only look for damage in encrypted targets, where the target is and no key.",
)
@target_option
@shared_options
def command(  # noqa: PLR0913 -- one for each option
    settings: Settings,
    groups: tuple[str, ...],
    domains: tuple[str, ...],
    *,
    newer_than: str | None,
    not_verified_since: str | None,
    sample: str | None,
    quick: bool,
    read_data: str | None,
    without_key: bool,
) -> None:
    """Read backups and compare them with the digests that were recorded.

    Without a GROUP, of all groups in the configuration; with a DOMAIN, all its backups, or the one
    of a DATE. Writes only the result, which "list"
    shows.
    """
    if without_key:
        if quick or domains or newer_than or not_verified_since or sample or read_data:
            raise click.UsageError("--without-key reads all packs, and takes no other choice")
        run_with_config(
            settings,
            lambda vb: vb.verify_without_key(groups),
            partial(reports.findings, all_shown=not settings.quiet, counted="finding"),
        )
    if quick and read_data:
        raise click.UsageError("--quick reads no data, and --read-data does")
    report = None if settings.quiet else reports.verify
    run_with_config(
        settings,
        lambda vb: vb.verify(
            groups,
            domains=domains,
            newer_than=newer_than,
            not_verified_since=not_verified_since,
            sample=sample,
            quick=quick,
            read_data=read_data,
        ),
        report,
        reports_as="verify",
    )
