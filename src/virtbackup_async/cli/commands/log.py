"""``virtbackup log``: the last runs."""

import click

from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, target_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("log")
@click.option(
    "-n", "limit", metavar="N", type=click.IntRange(min=1), default=10, help="So many runs."
)
@target_option
@shared_options
def command(settings: Settings, *, limit: int) -> None:
    """Show the last runs, the newest first.

    Each run of "backup", "verify", "clean" and "forget" leaves a line in its targets.
    """
    run_with_config(settings, lambda vb: vb.log(limit=limit), reports.log)
