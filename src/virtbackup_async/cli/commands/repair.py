"""``virtbackup repair``: mend a repository, so that the next backups make it whole."""

import click

from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, groups_argument, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("repair")
@groups_argument
@click.option(
    "--quick",
    is_flag=True,
    help="Read no data: take for good what is there, and as long as it should be.",
)
@shared_options
def command(settings: Settings, groups: tuple[str, ...], *, quick: bool) -> None:
    """Mend the repositories of groups' targets.

    Reads all chunks, rebuilds the index from the packs where it is damaged, and takes out of it
    what is lost, so that the next backup stores it again if a disk still has it. Removes no backup.
    "verify" says what is damaged without changing anything.
    """
    report = None if settings.quiet else reports.verify
    run_with_config(settings, lambda vb: vb.repair(groups, quick=quick), report)
