"""``virtbackup store-server``: what ``ssh`` starts on the machine that has a target."""

import re
from pathlib import Path
from typing import Final

import click

from virtbackup_async.cli.failure import say
from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.repository import serve_directory

_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([KMGT]?)(?:iB)?", re.IGNORECASE)
_POWERS: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def _size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    found = _SIZE.fullmatch(value.strip())
    if found is None or not (
        size_bytes := int(float(found[1]) * 1024 ** _POWERS[found[2].upper()])
    ):
        raise click.BadParameter(f"{value!r} is no size, such as 500G or 2TiB.")
    return size_bytes


@subcommand("store-server")
@click.option("--append-only", is_flag=True, help="Let the client add files, and change nothing.")
@click.option(
    "--quota",
    metavar="SIZE",
    callback=_size,
    help="Refuse to let the files of the directory grow beyond SIZE (500G, 2TiB).",
)
@click.argument("path", metavar="DIRECTORY", type=click.Path(path_type=Path))
@click.pass_context
def command(ctx: click.Context, path: Path, *, append_only: bool, quota: int | None) -> None:
    """Serve DIRECTORY to one client on standard input and output.

    ssh starts it on the machine that has the target ssh://HOST/DIRECTORY, mostly as the forced
    command of a key; "virtbackup config protect" prints the line for authorized_keys. It opens no
    port, and ends with its client.
    """
    try:
        serve_directory(path, append_only=append_only, quota_bytes=quota)
    except VirtBackupError as error:
        say(str(error))
        ctx.exit(error.exit_code)
