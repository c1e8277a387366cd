"""``virtbackup config migrate``: rewrite the configuration file with today's keys."""

import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import click
from anyio import to_thread

from virtbackup_async.cli.lazy_commands import subcommand
from virtbackup_async.cli.options import Settings, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import Job, run
from virtbackup_async.config.loading import find_config, read_file
from virtbackup_async.config.migration import Migration, migrate
from virtbackup_async.events import Emit, Finding, Level
from virtbackup_async.files.durable import keep_as, write_atomically, write_exclusively


@subcommand("migrate")
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path),
              help="Write to this new file; without it, to stdout.")  # fmt: skip
@click.option("--in-place", is_flag=True, help="Replace the file; the old one stays as FILE.bak.")
@shared_options
def command(settings: Settings, output: Path | None, *, in_place: bool) -> None:
    """Rewrite the configuration file with today's keys in place of old ones.

    Comments, order and meaning stay. Without an option, the new file goes to stdout, including a
    passphrase in it, and nothing is changed.
    """
    if output and in_place:
        raise click.UsageError("--output and --in-place exclude each other")
    to_stdout = not output and not in_place
    if to_stdout and settings.json:
        raise click.UsageError("--json needs stdout: add --output or --in-place")
    report = (
        None
        if to_stdout
        else partial(reports.findings, all_shown=not settings.quiet, counted="finding")
    )
    work = partial(_migrate, settings.config_path, output, in_place=in_place)
    run(settings, lambda _: Job(work), report)


async def _migrate(path: Path | None, output: Path | None, emit: Emit, *, in_place: bool) -> None:
    path = path or find_config()
    data = read_file(path)
    migration = migrate(data, path)
    if output:
        await write_exclusively(output, migration.data)
    elif not in_place:
        await to_thread.run_sync(_print, migration.data)
    elif migration.changes:
        await _put_in_place(path, migration.data)
    _tell(path, migration, emit)


def _print(data: bytes) -> None:
    # As bytes: the locale must not change a file in UTF-8. `| head` may stop reading.
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


async def _put_in_place(path: Path, data: bytes) -> None:
    # Replace the file itself, not a link to it.
    file = Path(await anyio.Path(path).resolve())
    await keep_as(file, file.with_name(f"{file.name}.bak"))
    await write_atomically(file, data, keep_owner=True)


def _tell(path: Path, migration: Migration, emit: Emit) -> None:
    for change in migration.changes:
        message = f"{change.name} replaced by {' and '.join(change.instead)}"
        emit(Finding(Level.INFO, "configuration", str(path), message, code="key_replaced"))
    if not migration.changes:
        emit(
            Finding(
                Level.OK,
                "configuration",
                str(path),
                "has today's keys: nothing was changed",
                code="keys_of_today",
            )
        )
