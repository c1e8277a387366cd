"""``virtbackup report``: a page that shows whether every guest can be restored."""

from pathlib import Path

import click

from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, target_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("report")
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="Write the page to this file, which is replaced as a whole.",
)
@target_option
@shared_options
def command(settings: Settings, *, html: Path) -> None:
    """Write a page that shows whether every guest can be restored.

    It is one HTML file for any browser: it needs no server and no other file, and runs no script.
    The file has mode 0600 if it is new. If a target cannot be read, the page says so in its first
    sentence, and the exit status is 22.
    """
    run_with_config(settings, lambda vb: vb.report(html), reports.page)
