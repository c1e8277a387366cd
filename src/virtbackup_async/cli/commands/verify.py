"""``virtbackup verify``: read backups back and compare them with what was recorded."""

import click

from virtbackup_async.cli.completion import domain_names, group_names
from virtbackup_async.cli.configured import configured
from virtbackup_async.cli.options import EXIT_STATUSES, Command, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import run
from virtbackup_async.cli.settings import Settings


@click.command("verify", cls=Command, epilog=EXIT_STATUSES)
@click.argument("groups", metavar="[GROUP]...", nargs=-1, shell_complete=group_names)
@click.option(
    "-D",
    "--domain",
    "domains",
    metavar="DOMAIN",
    shell_complete=domain_names,
    multiple=True,
    help="Verify this domain's backups alone; may be repeated.",
)
@click.option(
    "--newer-than",
    metavar="AGE|DATE",
    help="Only backups made in the last 12h, 7d or 4w, or since a date.",
)
@click.option(
    "--not-verified-since",
    metavar="AGE",
    help="Pass over backups that were found good in the last 12h, 7d or 4w.",
)
@click.option(
    "--sample",
    metavar="N|PERCENT",
    help="Of all those, only 5 or 10%, drawn anew every day.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Read no data: only see that all of it is there, and as long as it should be.",
)
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
) -> None:
    """Read backups back and compare them with what was recorded.

    Without a GROUP, of all groups in the configuration. Writes nothing but the result, which
    "list" shows.
    """
    job = configured(
        settings.config_path,
        lambda vb: vb.verify(
            groups,
            domains=domains,
            newer_than=newer_than,
            not_verified_since=not_verified_since,
            sample=sample,
            quick=quick,
        ),
        reports_as="verify",
    )
    run(settings, job, None if settings.quiet else reports.verify)
