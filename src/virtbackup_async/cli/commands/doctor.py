"""``virtbackup doctor``: look for what would make the next backups fail."""

from functools import partial

import click

from virtbackup_async.cli.completion import group_names
from virtbackup_async.cli.configured import configured
from virtbackup_async.cli.options import EXIT_STATUSES, Command, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import run
from virtbackup_async.cli.settings import Settings


@click.command("doctor", cls=Command, epilog=EXIT_STATUSES)
@click.argument("groups", metavar="[GROUP]...", nargs=-1, shell_complete=group_names)
@click.option(
    "--freeze",
    is_flag=True,
    help="Freeze each guest that is to be quiesced for a moment, to see how long it takes.",
)
@shared_options
def command(settings: Settings, groups: tuple[str, ...], *, freeze: bool) -> None:
    """Look for what would make backups fail.

    Examines libvirt, the domains of GROUP, their disks and the target; without a GROUP, of all
    groups. Nothing is changed, and no guest is frozen unless you say so.
    """
    job = configured(settings.config_path, lambda vb: vb.doctor(groups, freeze=freeze))
    run(settings, job, partial(reports.findings, all_shown=not settings.quiet, counted="check"))
