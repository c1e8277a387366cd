"""``virtbackup export``: write one disk of a backup as an image that any program can read."""

import sys
from pathlib import Path

import click

from virtbackup_async.api.virtbackup import VirtBackup
from virtbackup_async.catalog.checksum import TRUST_OPTION
from virtbackup_async.cli.arguments import one_backup
from virtbackup_async.cli.completion import disk_names, files
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, backup_of, shared_options, target_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.standard_streams import stdout_was_closed
from virtbackup_async.cli.with_config import run_with_config
from virtbackup_async.engine.restore.export import FORMATS
from virtbackup_async.engine.restore.export_target import STDOUT

_LEAST_WORDS = 3


@subcommand("export")
@one_backup("DISK", "OUTPUT", or_earlier=True, completed_by=(disk_names, files))
@click.option(
    "--format",
    "image_format",
    type=click.Choice(FORMATS),
    help="The format of the image; without it, as the suffix of OUTPUT says, or else qcow2.",
)
@click.option(
    TRUST_OPTION, "trusted", is_flag=True, help="Accept a definition with a wrong checksum."
)
@target_option
@shared_options
def command(
    settings: Settings,
    words: tuple[str, ...],
    *,
    date: str | None,
    image_format: str | None,
    trusted: bool,
) -> None:
    """Write one disk of a backup as one image, without others below it.

    DISK (vda) of DOMAIN's backup is compared with its digest, and becomes the new file
    OUTPUT, or goes to standard output if OUTPUT is -. In that case the exit status says whether the
    image is complete.
    """
    if len(words) < _LEAST_WORDS:
        raise click.UsageError("missing argument: DOMAIN[@DATE], DISK and OUTPUT")
    *names, disk, last = words
    backup, output = backup_of(names, date), Path(last)
    if output == STDOUT:
        _check_stdout(settings)

    async def work(vb: VirtBackup) -> None:
        found = await vb.find(*backup.words, disks=(disk,), trusted=trusted)
        await vb.export(found, disk, output, image_format=image_format)

    is_quiet = settings.quiet or output == STDOUT
    run_with_config(settings, work, None if is_quiet else reports.run)


def _check_stdout(settings: Settings) -> None:
    """Refuse an output that would mix with the image, before anything is done."""
    if settings.json:
        raise click.UsageError("--json writes where the image would go: give OUTPUT a name")
    if stdout_was_closed():
        raise click.UsageError("standard output is closed: give OUTPUT a name")
    if sys.stdout.isatty():
        raise click.UsageError(
            "an image does not belong on a terminal: give OUTPUT a name, or a pipe"
        )
