"""``virtbackup pin``: keep a backup from being cleaned, and ``unpin``, its opposite."""

import click

from virtbackup_async.cli.completion import domain_names, group_names
from virtbackup_async.cli.configured import configured
from virtbackup_async.cli.options import EXIT_STATUSES, Command, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import run
from virtbackup_async.cli.settings import Settings
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.inventory.chosen_backup import set_pinned
from virtbackup_async.events import Emit


@click.command("pin", cls=Command, epilog=EXIT_STATUSES)
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
    """Keep a backup of DOMAIN in GROUP from being cleaned, whatever its age.

    The pin is part of the backup's definition. "list" shows it; "unpin" takes it back.
    """
    change_pin(settings, (group, domain, date), pinned=True)


def change_pin(settings: Settings, backup: tuple[str, str, str | None], *, pinned: bool) -> None:
    """Run the command; ``backup`` is group, domain and date."""

    async def work(config: Config, emit: Emit) -> None:
        emit(await set_pinned(config, *backup, pinned=pinned))

    run(settings, configured(settings.config_path, work), None if settings.quiet else reports.pins)
