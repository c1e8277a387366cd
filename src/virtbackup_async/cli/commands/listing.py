"""``virtbackup list``: show the backups of groups."""

from functools import partial

import click

from virtbackup_async.cli.completion import domain_names, group_names
from virtbackup_async.cli.configured import configured
from virtbackup_async.cli.options import EXIT_STATUSES, Command, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import run
from virtbackup_async.cli.settings import Settings
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.inventory.listing import show_backups
from virtbackup_async.events import Emit


@click.command("list", cls=Command, epilog=EXIT_STATUSES)
@click.argument("groups", metavar="[GROUP]...", nargs=-1, shell_complete=group_names)
@click.option(
    "-D",
    "--domain",
    "domains",
    metavar="DOMAIN",
    shell_complete=domain_names,
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
    report = partial(reports.listing, short=short, detailed=bool(domains))
    run(settings, configured(settings.config_path, work), report)


async def _list(
    groups: tuple[str, ...], domains: tuple[str, ...], config: Config, emit: Emit, *, show_all: bool
) -> None:
    known = await _known_domains(config) if show_all else None
    await show_backups(config, groups, domains, emit, known_domains=known)


async def _known_domains(config: Config) -> tuple[str, ...]:
    # A list without --all has no need of libvirt, whose import takes as long as a thousand backups.
    from virtbackup_async.hypervisor.hypervisor import open_hypervisor  # noqa: PLC0415 -- see above

    async with open_hypervisor(
        config.uri, username=config.username, passphrase=config.passphrase
    ) as hypervisor:
        return await hypervisor.domain_names()
