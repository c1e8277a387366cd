"""``virtbackup list``: show the backups of groups."""

from functools import partial

import anyio.to_thread
import rich_click as click

from virtbackup_async.cli.configured import configured
from virtbackup_async.cli.grammar import EXIT_STATUSES, Command, shared_options
from virtbackup_async.cli.render.listing import Listing
from virtbackup_async.cli.run import run
from virtbackup_async.cli.settings import Settings
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.listing import list_backups
from virtbackup_async.events import Emit
from virtbackup_async.hypervisor.connection import open_hypervisor


@click.command("list", cls=Command, epilog=EXIT_STATUSES)
@click.argument("groups", metavar="[GROUP]...", nargs=-1)
@click.option(
    "-D",
    "--domain",
    "domains",
    metavar="DOMAIN",
    multiple=True,
    help="Show this domain's backups with their files; may be repeated.",
)
@click.option("-a", "--all", "show_all", is_flag=True, help="Also show domains without a backup.")
@click.option("-s", "--short", is_flag=True, help="Show counts only.")
@shared_options
def command(
    settings: Settings,
    groups: tuple[str, ...],
    domains: tuple[str, ...],
    *,
    show_all: bool,
    short: bool,
) -> None:
    """List the backups of groups.

    Without a GROUP, of all groups in the configuration.
    """
    work = partial(_list, groups, domains, show_all=show_all)
    report = Listing(short=short, detailed=bool(domains))
    run(settings, configured(settings.config_path, work), report)


async def _list(
    groups: tuple[str, ...], domains: tuple[str, ...], config: Config, emit: Emit, *, show_all: bool
) -> None:
    known = await _known_domains(config) if show_all else None
    scan = partial(list_backups, config, groups, domains, known_domains=known)
    for listing in await anyio.to_thread.run_sync(scan):
        for event in listing.events:
            emit(event)


async def _known_domains(config: Config) -> tuple[str, ...]:
    async with open_hypervisor(
        config.uri, username=config.username, passphrase=config.passphrase
    ) as hypervisor:
        return await hypervisor.domain_names()
