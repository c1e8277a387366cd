"""``virtbackup serve``: let other programs read the disks of a backup, without a restore."""

from dataclasses import replace
from pathlib import Path

import anyio
import click

from virtbackup_async.api.virtbackup import VirtBackup
from virtbackup_async.catalog.checksum import TRUST_OPTION
from virtbackup_async.cli.arguments import one_backup, split_at_commas
from virtbackup_async.cli.completion import disk_names
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, backup_of, shared_options, target_option
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.with_config import run_with_config

_PORT = 10809
_MOST_PORT = 65535


@subcommand("serve")
@one_backup(or_earlier=True)
@click.option(
    "--disk",
    "disks",
    metavar="DEV",
    multiple=True,
    shell_complete=disk_names,
    help="Serve only this disk (vda); may be repeated.",
)
@click.option(
    "--socket",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Make the Unix socket here; without it, in a private directory.",
)
@click.option(
    "--listen",
    metavar="HOST[:PORT]",
    help="Listen on this address in place of a Unix socket; needs --tls.",
)
@click.option(
    "--tls",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The directory with ca-cert.pem, server-cert.pem and server-key.pem, for --listen.",
)
@click.option(
    "--overlay",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Take writes to the disk into this file, which is made if it is missing.",
)
@click.option(
    TRUST_OPTION, "trusted", is_flag=True, help="Accept a definition with a wrong checksum."
)
@target_option
@shared_options
def command(  # noqa: PLR0913 -- one for each option
    settings: Settings,
    words: tuple[str, ...],
    *,
    date: str | None,
    disks: tuple[str, ...],
    socket: Path | None,
    listen: str | None,
    tls: Path | None,
    overlay: Path | None,
    trusted: bool,
) -> None:
    """Serve the disks of one backup over NBD, as a guest saw them.

    Prints the address of each disk, for qemu-img, nbdcopy, guestfish and other programs, and
    serves until Ctrl-C or SIGTERM. Nothing is restored: each program reads what it asks for.
    Meanwhile `clean` does not remove the backup, and nothing changes it: with --overlay, one disk
    can be written to, and the file keeps the changes.
    """
    if (listen is None) != (tls is None) or (listen is not None and socket is not None):
        raise click.UsageError("--listen goes with --tls, and not with --socket")
    backup, wanted = backup_of(words, date), split_at_commas(disks)
    tcp = None if listen is None else _address(listen)

    async def work(vb: VirtBackup) -> None:
        found = await vb.find(*backup.words, disks=wanted, trusted=trusted)
        async with vb.serve(found, disks=wanted, socket=socket, tcp=tcp, tls=tls, overlay=overlay):
            await anyio.sleep_forever()

    # A live view would be drawn over the addresses.
    plain = replace(settings, progress=False)
    run_with_config(plain, work, reports.serve, until_stopped=True)


def _address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST``, ``HOST:PORT`` or ``[IPV6]:PORT``."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(_PORT)
    if not host or not port.isdecimal() or int(port) > _MOST_PORT:
        raise click.UsageError(f"--listen: {text!r} is no HOST[:PORT]")
    return host.removeprefix("[").removesuffix("]"), int(port)
