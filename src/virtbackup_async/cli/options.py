"""The options and arguments that several commands share, and their completion in a shell.

The completion is cheap: it reads the configuration and the names of directories, no definition, and
never asks libvirt. If anything goes wrong, it offers nothing: a prompt is no place for errors.
"""

import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import wraps
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import click

from virtbackup_async.errors import VirtBackupError

if TYPE_CHECKING:
    from virtbackup_async.config.schema import Config

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that every command takes.

    Attributes:
        config_path: None to look in the usual places.
        target: the only target; then there is no configuration.
        progress: False under ``--no-progress``.
    """

    config_path: Path | None = None
    target: Path | None = None
    debug: bool = False
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: bool = True

    def log_level(self, *, debug: bool) -> int:
        """Return the lowest log level to show; ``debug`` may come from the configuration."""
        if debug:
            return logging.DEBUG
        if self.quiet:
            return logging.ERROR
        return logging.INFO if self.verbose else logging.WARNING

    def load_config(self) -> "Config":
        """Read the configuration, or make the one that the target stands for.

        Raises:
            ConfigError: it cannot be read, or there is none.
        """
        # The shell asks for the names of commands far more often: they need no YAML.
        from virtbackup_async.config.loading import load_config  # noqa: PLC0415 -- see above
        from virtbackup_async.config.target_config import config_of_target  # noqa: PLC0415

        return config_of_target(self.target) if self.target else load_config(self.config_path)


_SHARED = (
    click.option("--json", is_flag=True, help="Write JSON lines to stdout."),
    click.option("-q", "--quiet", is_flag=True, help="Print only warnings and failures."),
    click.option("-v", "--verbose", is_flag=True, help="Print more details."),
    click.option(
        "--no-progress", is_flag=True, help="Show neither a live view nor progress lines."
    ),
)


def shared_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every command; the function gets them as ``Settings``, its first argument.

    The options before the command (``-c``, ``-d``) are in the ``Settings`` of the context already.
    """

    def command(ctx: click.Context, **arguments: object) -> None:
        settings = replace(
            ctx.ensure_object(Settings),
            json=bool(arguments.pop("json")),
            quiet=bool(arguments.pop("quiet")),
            verbose=bool(arguments.pop("verbose")),
            progress=not arguments.pop("no_progress"),
        )
        function(settings, **arguments)

    wrapped: Callable[..., None] = wraps(function)(command)
    for option in reversed(_SHARED):
        wrapped = option(wrapped)
    return click.pass_context(wrapped)


FOREVER = "forever"


def _seconds(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    if value == FOREVER:
        return inf
    try:
        wait_s = float(value)
    except ValueError:
        wait_s = -1
    if not 0 <= wait_s < inf:
        raise click.BadParameter(f"{value!r} is neither a number of seconds nor {FOREVER!r}.")
    return wait_s


wait_option = click.option(
    "--wait",
    "wait_s",
    metavar="SECONDS",
    default="0",
    callback=_seconds,
    help="Wait so long, or forever, for a domain that another process works on.",
)


def group_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the groups of the configuration."""
    return _beginning(_targets(ctx), incomplete)


def domain_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the domains in the target of the typed group, or else in all targets."""
    targets = _targets(ctx)
    group = ctx.params.get("group")
    wanted = [targets[group]] if group in targets else list(targets.values())
    found: set[str] = set()
    for target in filter(None, wanted):
        try:
            with os.scandir(target) as entries:
                found.update(entry.name for entry in entries if entry.is_dir())
        except OSError:
            continue
    return _beginning(found, incomplete)


def _targets(ctx: click.Context) -> dict[str, str | None]:
    """Return each group's target; ``-c`` before the command counts, and ``--target``."""
    settings = ctx.ensure_object(Settings)
    above = ctx.parent.params.get("config_path") if ctx.parent else None
    if above is not None and settings.config_path is None:
        settings = replace(settings, config_path=above)
    try:
        groups = settings.load_config().groups
    except VirtBackupError:
        return {}
    return {name: str(group.target) if group.target else None for name, group in groups.items()}


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    # No name may end its line, or mean something to the script of the shell.
    return sorted(name for name in names if name.startswith(incomplete) and name.isprintable())


def _take_target(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    settings = ctx.ensure_object(Settings)
    if value is not None and settings.config_path is not None and not ctx.resilient_parsing:
        raise click.UsageError("-c and --target exclude each other")
    ctx.obj = replace(settings, target=value)


target_option: Decorator = click.option(
    "--target",
    metavar="DIR",
    type=click.Path(path_type=Path),
    expose_value=False,
    is_eager=True,
    callback=_take_target,
    help="Read the backups in this directory, without a configuration.",
)

groups_argument: Decorator = click.argument(
    "groups", metavar="[GROUP]...", nargs=-1, shell_complete=group_names
)


def domains_option(text: str) -> Decorator:
    """Return ``-D``, which names domains; ``text`` is its help."""
    return click.option(
        "-D",
        "--domain",
        "domains",
        metavar="DOMAIN",
        shell_complete=domain_names,
        multiple=True,
        help=text,
    )


def one_backup(*, or_earlier: bool) -> Decorator:
    """Return GROUP, DOMAIN and ``--date``, which choose one backup.

    Args:
        or_earlier: the command takes the last backup before the date if there is none of it.
    """
    earlier = "or else the last one before it, " if or_earlier else ""
    text = (
        f"The last backup of this month, day, hour, minute or second, {earlier}or the one of this "
        "name; without it, the last one."
    )

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for parameter in (
            click.option("--date", metavar="DATE", help=text),
            click.argument("domain", shell_complete=domain_names),
            click.argument("group", shell_complete=group_names),
        ):
            function = parameter(function)
        return function

    return decorate
