"""``virtbackup repair``: make a damaged repository usable again."""

import click

from virtbackup_async.cli.arguments import groups_argument
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("repair")
@groups_argument
@click.option(
    "--quick",
    is_flag=True,
    help="Read no data: trust all chunks that exist with the right length.",
)
@shared_options
def command(settings: Settings, groups: tuple[str, ...], *, quick: bool) -> None:
    """Repair the repositories of groups' targets.

    Reads all chunks, rebuilds the index from the packs where it is damaged, and removes lost chunks
    from it, so that the next backup stores them again if a disk still has them. Removes no backup.
    "verify" reports damage without changing anything.
    """
    report = None if settings.quiet else reports.verify
    run_with_config(settings, lambda vb: vb.repair(groups, quick=quick), report)
