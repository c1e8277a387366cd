"""``virtbackup unpin``: let a pinned backup be cleaned again."""

import click

from virtbackup_async.cli.completion import domain_names, group_names
from virtbackup_async.cli.configured import configured
from virtbackup_async.cli.options import EXIT_STATUSES, Command, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import run
from virtbackup_async.cli.settings import Settings


@click.command("unpin", cls=Command, epilog=EXIT_STATUSES)
@click.argument("group", shell_complete=group_names)
@click.argument("domain", shell_complete=domain_names)
@click.option(
    "--date",
    metavar="DATE",
    help="The last backup of this month, day, hour, minute or second, or the one of this name; "
    "without it, the last one.",
)
@shared_options
def command(settings: Settings, group: str, domain: str, date: str | None) -> None:
    """Let a pinned backup of DOMAIN in GROUP be cleaned again when no rule keeps it."""
    job = configured(settings.config_path, lambda vb: vb.unpin(group, domain, date))
    run(settings, job, None if settings.quiet else reports.pins)
