"""``virtbackup restore``: write the disks of one backup into a directory."""

import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anyio
import rich_click as click

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.cli.configured import configured
from virtbackup_async.cli.grammar import EXIT_STATUSES, Command, shared_options
from virtbackup_async.cli.render.result import Result
from virtbackup_async.cli.run import run
from virtbackup_async.cli.settings import Settings
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.environment import MIB
from virtbackup_async.engine.listing import find_backup, find_backup_or_before
from virtbackup_async.engine.restore import RestoreRequest, restore_backup
from virtbackup_async.events import Emit
from virtbackup_async.images.buffers import BufferPool


@click.command("restore", cls=Command, epilog=EXIT_STATUSES)
@click.argument("group")
@click.argument("domain")
@click.argument("target_dir", type=click.Path(path_type=Path))
@click.option(
    "--date",
    metavar="DATE",
    help="The backup of this date or name, or the last one before it; without it, the last one.",
)
@click.option(
    "--disk",
    "disks",
    metavar="DEV",
    multiple=True,
    help="Restore this disk (vda) alone; may be repeated.",
)
@shared_options
def command(  # noqa: PLR0913 -- one for each option
    settings: Settings,
    group: str,
    domain: str,
    target_dir: Path,
    *,
    date: str | None,
    disks: tuple[str, ...],
) -> None:
    """Restore the disks of one backup.

    The disk images of DOMAIN's backup in GROUP are written into TARGET_DIR, and checked against
    the digests that were recorded.
    """
    work = partial(_restore, _Wanted(group, domain, date, disks), target_dir)
    run(settings, configured(settings.config_path, work), None if settings.quiet else Result())


class _Wanted(NamedTuple):
    """Which backup, the last one if there is no date; which disks, all if none is named."""

    group: str
    domain: str
    date: str | None
    disks: tuple[str, ...]

    async def find(self, config: Config, emit: Emit) -> FoundBackup:
        if self.date is None:
            return await find_backup(config, self.group, self.domain, None)
        return await find_backup_or_before(config, self.group, self.domain, self.date, emit)


async def _restore(wanted: _Wanted, target_dir: Path, config: Config, emit: Emit) -> None:
    found = await wanted.find(config, emit)
    request = RestoreRequest(
        definition=found.definition,
        directory=found.path.parent,
        target=target_dir,
        disks=wanted.disks,
    )
    done = await restore_backup(
        request,
        buffers=BufferPool(config.buffers_mib * MIB),
        cpu=anyio.CapacityLimiter(os.cpu_count() or 1),
        emit=emit,
    )
    emit(done)
