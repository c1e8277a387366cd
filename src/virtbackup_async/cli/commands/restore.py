"""``virtbackup restore``: restore the disks of one backup, or its domain."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import click
from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.api.virtbackup import VirtBackup, open_virtbackup
from virtbackup_async.catalog.checksum import TRUST_OPTION
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.cli.arguments import one_backup, split_at_commas
from virtbackup_async.cli.completion import directories, disk_names
from virtbackup_async.cli.failure import say
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import (
    OneBackup,
    Settings,
    backup_of,
    shared_options,
    target_option,
)
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.model.amounts import duration
from virtbackup_async.reporting.text import printable

_BACKUP_WORDS = 2
_ONE_OF_THEM = "Give either a TARGET_DIR or --in-place"


@subcommand("restore")
@one_backup("[TARGET_DIR]", or_earlier=True, completed_by=(directories,))
@click.option(
    "--disk",
    "disks",
    metavar="DEV",
    multiple=True,
    shell_complete=disk_names,
    callback=lambda _ctx, _param, values: split_at_commas(values),
    help="Restore this disk (vda) alone; may be repeated, or name several: vda,vdb.",
)
@click.option("--define", is_flag=True, help="Define the domain in libvirt, on the restored disks.")
@click.option(
    "--name", metavar="NEW", help="Define it as another domain, with a UUID and MACs of its own."
)
@click.option("--start", is_flag=True, help="Start the defined domain.")
@click.option(
    "--in-place",
    is_flag=True,
    help="Replace the disks of the domain, which must be shut off; without TARGET_DIR.",
)
@click.option(
    "--remove-managed-save",
    "remove_saved",
    is_flag=True,
    help="With --in-place: discard the memory of a saved domain.",
)
@click.option(
    "--format",
    "image_format",
    type=click.Choice(["raw", "qcow2"]),
    help="The format of the restored disks; without it, that of the backup, or with --define and "
    "--name that of the domain.",
)
@click.option(
    "--discard-old",
    is_flag=True,
    help="Remove the images that --in-place replaces; otherwise they stay next to the new ones.",
)
@click.option("--yes", is_flag=True, help="Do not ask on a terminal before --in-place.")
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Start the domain, or restore in place, although the backup lacks some of its disks.",
)
@click.option(
    TRUST_OPTION,
    "trusted",
    is_flag=True,
    help="Accept a definition with a wrong checksum; into TARGET_DIR alone.",
)
@target_option
@shared_options
def command(settings: Settings, **options: Any) -> None:  # noqa: ANN401 -- see _Wanted
    """Restore the disks of one backup.

    The disk images of DOMAIN's backup are written into TARGET_DIR, or in place of the
    domain's own, and compared with the digests that were recorded. On a terminal, without
    arguments, it asks for the guest, the backup and the directory.
    """
    may_ask = not (options["yes"] or settings.json) and sys.stdin.isatty() and sys.stderr.isatty()
    if may_ask and not options["words"] and options["date"] is None:
        options |= _picked(settings, in_place=options["in_place"])
    wanted = wanted_of(**options)
    _refuse(wanted)
    if wanted.in_place and may_ask:
        wanted = _asked(wanted, settings)
    report = None if settings.quiet else reports.run
    run_with_config(settings, wanted.restore, report)


class _Wanted(Struct, frozen=True):
    """The backup, the directory, and the options by the names that click has for them."""

    backup: OneBackup
    target_dir: Path | None
    disks: tuple[str, ...]
    define: bool
    name: str | None
    start: bool
    in_place: bool
    remove_saved: bool
    image_format: str | None
    discard_old: bool
    yes: bool
    allow_missing: bool
    trusted: bool

    @property
    def defines(self) -> bool:
        return self.define or bool(self.name)

    async def find(self, vb: VirtBackup) -> FoundBackup:
        return await vb.find(*self.backup.words, disks=self.disks, trusted=self.trusted)

    async def restore(self, vb: VirtBackup) -> None:
        """Restore into the directory, or in place if there is none."""
        found = await self.find(vb)
        if self.target_dir is None:
            await vb.restore_in_place(
                found,
                disks=self.disks,
                discard_old=self.discard_old,
                remove_managed_save=self.remove_saved,
                allow_missing=self.allow_missing,
            )
        elif self.defines:
            await vb.restore_domain(
                found,
                self.target_dir,
                disks=self.disks,
                name=self.name,
                start=self.start,
                allow_missing=self.allow_missing,
                image_format=self.image_format,
            )
        else:
            target = self.target_dir
            await vb.restore(found, target, disks=self.disks, image_format=self.image_format)


def _picked(settings: Settings, *, in_place: bool) -> dict[str, Any]:
    """Ask what to restore; return the options that say it."""
    # Only a question needs it.
    from virtbackup_async.cli.restore_dialog import ask_restore  # noqa: PLC0415 -- see above

    try:
        picked = anyio.run(partial(ask_restore, settings.load_config, in_place=in_place))
    except VirtBackupError as error:
        say(str(error))
        sys.exit(error.exit_code)
    return {"words": picked.words, "in_place": picked.target_dir is None}


def wanted_of(words: Sequence[str], date: str | None, **options: Any) -> _Wanted:  # noqa: ANN401
    """Tell the words that name the backup from the directory behind them."""
    has_directory = len(words) > 1 and not options["in_place"]
    names = words[:-1] if has_directory else words
    target = Path(words[-1]) if has_directory else None
    if options["in_place"] and len(words) > _BACKUP_WORDS:
        raise click.UsageError(_ONE_OF_THEM)
    return _Wanted(backup_of(names, date), target, **options)


def _refuse(wanted: _Wanted) -> None:
    """Refuse options that exclude each other, or have no meaning without another."""
    defines, in_place = wanted.defines, wanted.in_place
    wrong = {
        _ONE_OF_THEM: in_place == (wanted.target_dir is not None),
        "--in-place takes neither --define nor --name nor --start": in_place
        and (defines or wanted.start),
        "--in-place keeps the format of each disk: no --format": in_place and wanted.image_format,
        "--discard-old goes with --in-place": wanted.discard_old and not in_place,
        "--remove-managed-save goes with --in-place": wanted.remove_saved and not in_place,
        "--start needs --define or --name": wanted.start and not defines,
        # A flipped bit may have changed the XML, or the name of a disk.
        f"{TRUST_OPTION} takes neither --in-place nor --define nor --name": wanted.trusted
        and (in_place or defines),
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise click.UsageError(message)


def _asked(wanted: _Wanted, settings: Settings) -> _Wanted:
    """Ask before the current disks are replaced; return a request for the backup that was shown.

    If no backup is found, there is no question: the run reports the error.
    """

    async def find() -> FoundBackup:
        async with open_virtbackup(settings.load_config()) as vb:
            return await wanted.find(vb)

    with suppress(VirtBackupError):
        found = anyio.run(find)
        click.confirm(_question(wanted, found), abort=True, err=True)
        definition = found.definition
        shown = wanted.backup.pinned_down(definition.domain_name, definition.name)
        return replace(wanted, backup=shown)
    return wanted


def _question(wanted: _Wanted, found: FoundBackup) -> str:
    definition = found.definition
    made = datetime.fromtimestamp(definition.date).astimezone()
    age = duration((datetime.now(UTC) - made).total_seconds())
    disks = ", ".join(wanted.disks or definition.disks)
    old = "is lost" if wanted.discard_old else "is kept beside, as <image>.before-restore-<date>"
    return printable(
        f"{definition.domain_name}: {disks} will be as on {made:%Y-%m-%d %H:%M:%S}, {age} ago. "
        f"What is on them now {old}. Go on?"
    )
