"""``virtbackup systemd``: the units that start this program every night."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
from anyio import to_thread

from virtbackup_async.cli.lazy_commands import EXIT_STATUSES, Entry, LazyGroup, subcommand
from virtbackup_async.cli.options import Settings, shared_options
from virtbackup_async.cli.render import reports
from virtbackup_async.cli.run import Job, run
from virtbackup_async.config.loading import SYSTEM_DIRECTORY, load_config, search_paths
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.setup.program import (
    running_program,
    why_not_lasting,
    why_not_trusted,
)
from virtbackup_async.engine.setup.systemd import (
    SystemdRequest,
    install_units,
    runs_here,
    uninstall_units,
    unit_directory,
)
from virtbackup_async.engine.setup.units import Unit, units_for
from virtbackup_async.errors import ConfigError
from virtbackup_async.events import Emit, Warned

_PRIVATE = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 -- nothing is written there
_MODULE = "virtbackup_async.cli.commands.systemd"


class SystemdCommands(LazyGroup):
    """What follows ``virtbackup systemd``."""

    entries = {  # noqa: RUF012 -- never changed
        "install": Entry(_MODULE, "Write units and timers, and enable them.", attribute="install"),
        "uninstall": Entry(_MODULE, "Disable and remove them.", attribute="uninstall"),
    }


@click.group("systemd", cls=SystemdCommands, epilog=EXIT_STATUSES)
def command() -> None:
    """Have systemd start this program every night."""


_user_option = click.option(
    "--user", is_flag=True, help="For the service manager of this user, not for the system's."
)


@subcommand("install")
@_user_option
@click.option("--dry-run", is_flag=True, help="Write nothing; print the units.")
@click.option(
    "--force",
    is_flag=True,
    help="Replace units of the admin's, and accept a program in a temporary place.",
)
@shared_options
def install(settings: Settings, *, user: bool, dry_run: bool, force: bool) -> None:
    """Write systemd units that start this very program, and enable their timers.

    They back up and clean every night, verify every week, and undo at boot what a power cut
    interrupted. To run it again changes nothing, or brings the units up to date.
    """
    if dry_run and settings.json:
        raise click.UsageError("--dry-run prints units, not --json")
    work = partial(_install, settings.config_path, user=user, dry_run=dry_run, force=force)
    report = None if dry_run else partial(reports.findings, all_shown=not settings.quiet)
    run(settings, lambda _: Job(work), report)


@subcommand("uninstall")
@_user_option
@shared_options
def uninstall(settings: Settings, *, user: bool) -> None:
    """Disable and remove the units that "systemd install" wrote.

    Files that it did not write stay.
    """

    async def work(emit: Emit) -> None:
        units = units_for(("virtbackup",), user=user)
        await uninstall_units(units, _request(user=user, force=False), emit)

    report = partial(reports.findings, all_shown=not settings.quiet)
    run(settings, lambda _: Job(work), report)


async def _install(
    config_path: Path | None, emit: Emit, *, user: bool, dry_run: bool, force: bool
) -> None:
    config = await to_thread.run_sync(load_config, config_path)
    for path in () if user else _hidden(config):
        emit(Warned(f"{path} is in a temporary directory, and units have one of their own"))
    units = await to_thread.run_sync(partial(_units, config.path, user=user, force=force))
    request = _request(user=user, force=force)
    if dry_run:
        await to_thread.run_sync(_print, units, request.directory)
    else:
        await install_units(units, request, emit)


def _request(*, user: bool, force: bool) -> SystemdRequest:
    return SystemdRequest(unit_directory(user=user), user, force, runs_here(user=user))


def _hidden(config: Config) -> list[Path]:
    """Return the paths that the units would not see: they have a /tmp of their own."""
    targets = (
        group.target.directory
        for group in config.groups.values()
        if group.target and group.target.is_local
    )
    paths = (config.path.absolute(), *targets)
    return [path for path in dict.fromkeys(paths) if any(map(path.is_relative_to, _PRIVATE))]


def _units(path: Path, *, user: bool, force: bool) -> tuple[Unit, ...]:
    """Return the units for the running program and its configuration.

    Raises:
        ConfigError: tonight's run would not find the program, or should not trust it.
    """
    config = path.absolute()
    program = running_program(sys.argv[0], sys.executable)
    reason = why_not_lasting(program)
    if reason is not None and not force:
        hint = "Install it where it stays, with pipx for example, and run that; or add --force."
        raise ConfigError(f"the units would start a program that may be gone: {reason}", hint=hint)
    reason = None if user else why_not_trusted(program)
    if reason is not None:
        raise ConfigError(f"root would run a program that others can exchange: {reason}")
    own, _ = search_paths()
    is_found = config == (own if user else SYSTEM_DIRECTORY / own.name)
    options = () if is_found else ("-c", str(config))
    try:
        return units_for((*program.argv, *options), user=user)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _print(units: Sequence[Unit], directory: Path) -> None:
    for unit in units:
        click.echo(f"# {directory / unit.name}\n{unit.text}")
