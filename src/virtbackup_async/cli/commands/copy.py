"""``virtbackup copy``: copy backups into another target."""

from dataclasses import replace

import click

from virtbackup_async.cli.completion import group_names, names_of_backups
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options, target_option, wait_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config
from virtbackup_async.model.packager import PACKAGER_TYPES


@subcommand("copy")
@click.argument(
    "backups", metavar="[GROUP|DOMAIN[@DATE]]...", nargs=-1, shell_complete=names_of_backups
)
@click.option(
    "--to",
    "to",
    metavar="TARGET",
    required=True,
    shell_complete=group_names,
    help="The target to copy into: a directory, or a group that names it.",
)
@click.option(
    "--group",
    "groups",
    metavar="GROUP",
    multiple=True,
    shell_complete=group_names,
    help="Only backups of this group; may be repeated.",
)
@click.option("--latest", is_flag=True, help="Only the newest backup of each domain.")
@click.option(
    "--since",
    metavar="AGE|DATE",
    help="Only backups made in the last 12h, 7d or 4w, or since a date.",
)
@click.option(
    "--new",
    is_flag=True,
    help="Only backups that are newer than all that the target has of their domain.",
)
@click.option(
    "--packager",
    metavar="TYPE",
    type=click.Choice(PACKAGER_TYPES),
    help="How to store them; without it, as the configuration says of the target, or else in a "
    "repository.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be copied.")
@wait_option
@target_option
@shared_options
def command(  # noqa: PLR0913 -- one for each option
    settings: Settings,
    backups: tuple[str, ...],
    *,
    to: str,
    groups: tuple[str, ...],
    latest: bool,
    since: str | None,
    new: bool,
    packager: str | None,
    dry_run: bool,
    wait_s: float,
) -> None:
    """Copy complete backups into another target, which lacks them.

    Without a GROUP, of all groups in the configuration; with a DOMAIN, all its backups, or the one
    of a DATE. What is there already is skipped, and nothing there is ever removed. Each image is
    compared with its digest on the way: a damaged backup is not copied.
    """
    run_with_config(
        replace(settings, progress=settings.progress and not dry_run),
        lambda vb: vb.copy(
            to,
            backups,
            groups=groups,
            packager=packager,
            latest=latest,
            since=since,
            new=new,
            wait_s=wait_s,
            dry_run=dry_run,
        ),
        None if settings.quiet else reports.copies,
        reports_as=None if dry_run else "copy",
    )
