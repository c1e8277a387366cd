"""``virtbackup repair``: mend a repository, so that the next backups make it whole."""

import click

from virtbackup_async.cli.completion import group_names
from virtbackup_async.cli.configured import configured
from virtbackup_async.cli.options import EXIT_STATUSES, Command, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import run
from virtbackup_async.cli.settings import Settings


@click.command("repair", cls=Command, epilog=EXIT_STATUSES)
@click.argument("groups", metavar="[GROUP]...", nargs=-1, shell_complete=group_names)
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
    job = configured(settings.config_path, lambda vb: vb.repair(groups, quick=quick))
    run(settings, job, None if settings.quiet else reports.verify)
