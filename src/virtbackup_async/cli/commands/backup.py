"""``virtbackup backup``: back up the domains of groups."""

from functools import partial

import click

from virtbackup_async.cli.completion import group_names
from virtbackup_async.cli.configured import configured
from virtbackup_async.cli.options import EXIT_STATUSES, Command, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import run
from virtbackup_async.cli.settings import Settings
from virtbackup_async.cli.waiting import wait_option
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.backup.session import BackupRequest, run_backup
from virtbackup_async.engine.runtime import open_runtime
from virtbackup_async.events import Emit


@click.command("backup", cls=Command, epilog=EXIT_STATUSES)
@click.argument("groups", metavar="[GROUP]...", nargs=-1, shell_complete=group_names)
@click.option(
    "--allow-empty", is_flag=True, help="End with 0 also if there was nothing to back up."
)
@wait_option
@shared_options
def command(
    settings: Settings, groups: tuple[str, ...], *, allow_empty: bool, wait_s: float
) -> None:
    """Back up the domains of groups.

    Without a GROUP, of all groups that have "autostart" in the configuration.
    """
    request = BackupRequest(groups, wait_s, allow_empty)
    job = configured(settings.config_path, partial(_back_up, request), told="backup")
    run(settings, job, None if settings.quiet else reports.result)


async def _back_up(request: BackupRequest, config: Config, emit: Emit) -> None:
    async with open_runtime(config, emit) as runtime:
        await run_backup(runtime, request)
