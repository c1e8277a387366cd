"""``virtbackup restore``: bring the disks of one backup back, or the whole domain."""

import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
import click
from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.catalog.checksum import TRUST_OPTION
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.cli.completion import domain_names, group_names
from virtbackup_async.cli.configured import configured
from virtbackup_async.cli.options import EXIT_STATUSES, Command, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import run
from virtbackup_async.cli.settings import Settings
from virtbackup_async.config.loading import load_config
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.host_state import locks_of
from virtbackup_async.engine.inventory.chosen_backup import find_backup_to_read
from virtbackup_async.engine.inventory.lacking import refuse_mixture
from virtbackup_async.engine.restore.define import DefineRequest, check_definable, define_restored
from virtbackup_async.engine.restore.in_place import InPlaceRequest, restore_in_place
from virtbackup_async.engine.restore.plan import Formats
from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup
from virtbackup_async.engine.runtime import MIB
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.events import Emit
from virtbackup_async.hypervisor.hypervisor import open_hypervisor
from virtbackup_async.images.buffers import BufferPool
from virtbackup_async.model.amounts import duration
from virtbackup_async.reporting.text import printable


@click.command("restore", cls=Command, epilog=EXIT_STATUSES)
@click.argument("group", shell_complete=group_names)
@click.argument("domain", shell_complete=domain_names)
@click.argument("target_dir", type=click.Path(path_type=Path), required=False)
@click.option(
    "--date",
    metavar="DATE",
    help="The last backup of this month, day, hour, minute or second, or else the last one before "
    "it, or the one of this name; without it, the last one.",
)
@click.option(
    "--disk",
    "disks",
    metavar="DEV",
    multiple=True,
    help="Restore this disk (vda) alone; may be repeated.",
)
@click.option("--define", is_flag=True, help="Define the domain in libvirt, on the restored disks.")
@click.option(
    "--name", metavar="NEW", help="Define it as another domain, with a UUID and MACs of its own."
)
@click.option("--start", is_flag=True, help="Start the domain that was defined.")
@click.option(
    "--in-place",
    is_flag=True,
    help="Replace the disks of the domain, which must be shut off; without TARGET_DIR.",
)
@click.option(
    "--remove-managed-save",
    "remove_saved",
    is_flag=True,
    help="With --in-place: throw away the memory of a domain that is saved.",
)
@click.option(
    "--format",
    "image_format",
    type=click.Choice(["raw", "qcow2"]),
    help="What the disks become; without it, what they are in the backup, and with --define and "
    "--name what they were in the domain.",
)
@click.option(
    "--discard-old",
    is_flag=True,
    help="Remove the disks that --in-place replaces, which stay beside the new ones otherwise.",
)
@click.option("--yes", is_flag=True, help="Do not ask on a terminal before --in-place.")
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Start the domain, or restore in place, although the backup lacks disks of it.",
)
@click.option(
    TRUST_OPTION,
    "trusted",
    is_flag=True,
    help="Go by a definition whose checksum is wrong; into TARGET_DIR alone.",
)
@shared_options
def command(  # noqa: PLR0913 -- one for each option
    settings: Settings,
    group: str,
    domain: str,
    target_dir: Path | None,
    *,
    date: str | None,
    disks: tuple[str, ...],
    define: bool,
    name: str | None,
    start: bool,
    in_place: bool,
    image_format: str | None,
    discard_old: bool,
    yes: bool,
    remove_saved: bool,
    allow_missing: bool,
    trusted: bool,
) -> None:
    """Restore the disks of one backup.

    The disk images of DOMAIN's backup in GROUP are written into TARGET_DIR, or in the place of the
    domain's own, and checked against the digests that were recorded.
    """
    if in_place == (target_dir is not None):
        raise click.UsageError("Give either a TARGET_DIR or --in-place")
    if in_place and (define or name or start):
        raise click.UsageError("--in-place takes neither --define nor --name nor --start")
    if in_place and image_format:
        raise click.UsageError("--in-place leaves each disk the format that it has: no --format")
    if not in_place:
        _refuse_for_images({"--discard-old": discard_old, "--remove-managed-save": remove_saved})
    if start and not (define or name):
        raise click.UsageError("--start needs --define or --name")
    if trusted and (in_place or define or name):
        # The XML, and what a disk is called, may be what a flipped bit made of them.
        raise click.UsageError(f"{TRUST_OPTION} takes neither --in-place nor --define nor --name")
    wanted = _Wanted(
        group,
        domain,
        date,
        disks,
        name,
        start,
        image_format,
        discard_old=discard_old,
        remove_saved=remove_saved,
        allow_missing=allow_missing,
        trusted=trusted,
    )
    if in_place and not (yes or settings.json) and sys.stdin.isatty() and sys.stderr.isatty():
        wanted = _asked(wanted, settings)
    if target_dir is None:
        work = partial(_in_place, wanted)
    elif define or name:
        work = partial(_define, wanted, target_dir)
    else:
        work = partial(_restore, wanted, target_dir)
    run(
        settings, configured(settings.config_path, work), None if settings.quiet else reports.result
    )


def _refuse_for_images(options: dict[str, bool]) -> None:
    """Refuse what has a meaning only for a domain's own images."""
    for option, is_given in options.items():
        if is_given:
            raise click.UsageError(f"{option} goes with --in-place")


class _Wanted(Struct, frozen=True):
    """Which backup, the last one if there is no date; which disks, all if none is named."""

    group: str
    domain: str
    date: str | None
    disks: tuple[str, ...]
    new_name: str | None
    start: bool
    image_format: str | None
    discard_old: bool
    remove_saved: bool
    allow_missing: bool
    trusted: bool

    async def find(self, config: Config, emit: Emit) -> FoundBackup:
        return await find_backup_to_read(
            config,
            self.group,
            self.domain,
            self.date,
            emit,
            disks=self.disks,
            trusted=self.trusted,
        )


def _asked(wanted: _Wanted, settings: Settings) -> _Wanted:
    """Ask before disks of today are replaced; return what was asked of, that very backup.

    What cannot be found is not asked of: the run says what is wrong.
    """
    with suppress(VirtBackupError):
        config = load_config(settings.config_path)
        found = anyio.run(wanted.find, config, lambda _event: None)
        click.confirm(_question(wanted, found), abort=True, err=True)
        return replace(wanted, date=found.definition.name)
    return wanted


def _question(wanted: _Wanted, found: FoundBackup) -> str:
    definition = found.definition
    made = datetime.fromtimestamp(definition.date).astimezone()
    age = duration((datetime.now(UTC) - made).total_seconds())
    disks = ", ".join(wanted.disks or definition.disks)
    old = "is lost" if wanted.discard_old else "is kept beside, as <image>.before-restore-<date>"
    return printable(
        f"{wanted.domain}: {disks} will be as on {made:%Y-%m-%d %H:%M:%S}, {age} ago. "
        f"What is on them now {old}. Go on?"
    )


async def _restore(wanted: _Wanted, target: Path, config: Config, emit: Emit) -> None:
    found = await wanted.find(config, emit)
    request = RestoreRequest(
        found.definition,
        found.path.parent,
        target,
        wanted.disks,
        formats=Formats(wanted.image_format),
    )
    await _write(request, config, emit)


async def _define(wanted: _Wanted, target: Path, config: Config, emit: Emit) -> None:
    found = await wanted.find(config, emit)
    definition, disks = found.definition, wanted.disks
    formats = Formats(wanted.image_format, as_they_were=True)
    files = RestoreRequest(
        definition, found.path.parent, target, disks, for_domain=True, formats=formats
    )
    request = DefineRequest(
        definition,
        target,
        disks,
        wanted.new_name,
        wanted.start,
        allow_missing=wanted.allow_missing,
        formats=formats,
    )
    async with open_hypervisor(
        config.uri, username=config.username, passphrase=config.passphrase
    ) as hypervisor:
        await check_definable(request, hypervisor)
        await _write(files, config, emit)
        emit(await define_restored(request, hypervisor, emit))


async def _in_place(wanted: _Wanted, config: Config, emit: Emit) -> None:
    found = await wanted.find(config, emit)
    if not wanted.allow_missing:
        refuse_mixture(found.definition, wanted.disks)
    async with open_hypervisor(
        config.uri, username=config.username, passphrase=config.passphrase
    ) as hypervisor:
        done = await restore_in_place(
            InPlaceRequest(
                found.definition,
                found.path.parent,
                wanted.disks,
                discard_old=wanted.discard_old,
                remove_saved=wanted.remove_saved,
            ),
            await hypervisor.domain(wanted.domain),
            lock_directory=locks_of(config),
            buffers=_buffers(config),
            cpu=_cpu(),
            emit=emit,
        )
    emit(done)


async def _write(request: RestoreRequest, config: Config, emit: Emit) -> None:
    emit(await restore_backup(request, buffers=_buffers(config), cpu=_cpu(), emit=emit))


def _buffers(config: Config) -> BufferPool:
    return BufferPool(config.buffers_mib * MIB)


def _cpu() -> anyio.CapacityLimiter:
    return anyio.CapacityLimiter(os.cpu_count() or 1)
