"""``virtbackup doctor``: look for problems that would make the next backups fail."""

from functools import partial

import click

from virtbackup_async.cli.arguments import groups_argument
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config


@subcommand("doctor")
@groups_argument
@click.option(
    "--freeze",
    is_flag=True,
    help="Freeze each guest that is to be quiesced for a moment, to measure how long it takes.",
)
@shared_options
def command(settings: Settings, groups: tuple[str, ...], *, freeze: bool) -> None:
    """Look for problems that would make backups fail.

    Examines libvirt, the domains of GROUP, their disks and the target; without a GROUP, of all
    groups. Nothing is changed, and no guest is frozen unless you say so.
    """
    is_brief = not (settings.verbose or settings.debug)
    report = partial(reports.findings, all_shown=not settings.quiet, folded=is_brief)
    run_with_config(settings, lambda vb: vb.doctor(groups, freeze=freeze), report)
