"""The options that several commands share, and the words that name a backup."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from virtbackup_async.cli.typed_keys import held_recovery_key
from virtbackup_async.errors import ConfigError

if TYPE_CHECKING:
    from virtbackup_async.config.schema import Config

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that every command takes.

    Attributes:
        config_path: None to look in the usual places.
        target: the only target; then there is no configuration.
        key_file: opens that target, if it is encrypted.
        recovery: open encrypted targets with a recovery key, which is asked for.
        recovery_file: has that key, so that it is not asked for.
        progress: False under ``--no-progress``.
    """

    config_path: Path | None = None
    target: Path | str | None = None
    key_file: Path | None = None
    recovery: bool = False
    recovery_file: Path | None = None
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
        from virtbackup_async.config.target_config import (  # noqa: PLC0415
            config_of_target,
            with_held_key,
        )

        if self.key_file and not self.target:
            raise ConfigError("--key-file goes with --target: a configuration names its own")
        if self.target:
            config = config_of_target(self.target, self.key_file)
        else:
            config = load_config(self.config_path)
        if self.recovery or self.recovery_file:
            return with_held_key(config, held_recovery_key(self.recovery_file))
        return config


CONFIG_HELP = (
    "The configuration file; without it, the one that VIRTBACKUP_CONFIG names, or in the usual "
    "places."
)

config_option = click.option(
    "-c",
    "--config",
    "config_path",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help=CONFIG_HELP,
)

_SHARED = (
    config_option,
    click.option("--json", is_flag=True, help="Write JSON lines to stdout."),
    click.option("-q", "--quiet", is_flag=True, help="Print only warnings and failures."),
    click.option("-v", "--verbose", is_flag=True, help="Print more details."),
    click.option(
        "--no-progress", is_flag=True, help="Show neither a live view nor progress lines."
    ),
)


def shared_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every command; the function gets them as ``Settings``, its first argument.

    The options before the command are in the ``Settings`` of the context already; ``-c``, ``-q``
    and ``-v`` may be before it and after it.
    """

    def command(ctx: click.Context, *, config_path: Path | None, **arguments: object) -> None:
        before = ctx.ensure_object(Settings)
        if config_path is not None and before.target is not None:
            raise click.UsageError("-c and --target exclude each other")
        settings = replace(
            before,
            config_path=config_path or before.config_path,
            json=bool(arguments.pop("json")),
            quiet=bool(arguments.pop("quiet")) or before.quiet,
            verbose=bool(arguments.pop("verbose")) or before.verbose,
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


def _take_target(ctx: click.Context, _param: click.Parameter, value: Path | str | None) -> None:
    settings = ctx.ensure_object(Settings)
    if value is not None and settings.config_path is not None and not ctx.resilient_parsing:
        raise click.UsageError("-c and --target exclude each other")
    ctx.obj = replace(settings, target=value)


class _TargetType(click.Path):
    """A directory's path, or the URL of a target elsewhere, which stays as it is."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 -- as in click
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401
        if isinstance(value, str) and "://" in value:
            return value
        return super().convert(value, param, ctx)


target_alone_option: Decorator = click.option(
    "--target",
    metavar="DIR",
    type=_TargetType(path_type=Path),
    expose_value=False,
    is_eager=True,
    callback=_take_target,
    help="Read the backups in this directory, or at this URL, without a configuration.",
)


def _take_key_file(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    ctx.obj = replace(ctx.ensure_object(Settings), key_file=value)


_key_file_option: Decorator = click.option(
    "--key-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    expose_value=False,
    is_eager=True,
    callback=_take_key_file,
    help="Open an encrypted --target with this key file.",
)


def _take_recovery(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001
    ctx.obj = replace(ctx.ensure_object(Settings), recovery=value)


def _take_recovery_file(ctx: click.Context, _param: click.Parameter, value: Path | None) -> None:
    ctx.obj = replace(ctx.ensure_object(Settings), recovery_file=value)


_KEYS: tuple[Decorator, ...] = (
    _key_file_option,
    click.option(
        "--recovery",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_take_recovery,
        help="Open encrypted targets with a recovery key, which is asked.",
    ),
    click.option(
        "--recovery-file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        envvar="VIRTBACKUP_RECOVERY_FILE",
        expose_value=False,
        is_eager=True,
        callback=_take_recovery_file,
        help="Read that recovery key from this file.",
    ),
)


def target_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--target``, and the options that open encrypted targets."""
    for option in reversed(_KEYS):
        function = option(function)
    return target_alone_option(function)


class OneBackup(NamedTuple):
    """A backup as it was typed: the group if it is a word of its own, the name, and the date."""

    group: str | None
    name: str
    date: str | None

    @property
    def words(self) -> tuple[str, str | None, str | None]:
        """The arguments for ``find``, ``pin`` and ``unpin`` of ``VirtBackup``."""
        if self.group is None:
            return self.name, None, self.date
        return self.group, self.name, self.date

    def pinned_down(self, domain: str, backup: str) -> "OneBackup":
        """Return it with the backup's own name in place of a date, which may mean another soon.

        Args:
            domain: of the backup that was found by it.
            backup: the name of that backup.
        """
        if self.name.endswith(backup):
            return self
        for start in range(len(self.name)):
            before, rest = self.name[:start], self.name[start:].removeprefix(domain)
            is_domain = self.name.startswith(domain, start) and before[-1:] in {"", "/"}
            if is_domain and rest[:1] in {"", "@"}:
                return OneBackup(self.group, f"{before}{domain}", backup)
        return self


def backup_of(words: Sequence[str], date: str | None) -> OneBackup:
    """Return the backup that the words of ``[GROUP] DOMAIN[@DATE]`` name.

    Raises:
        UsageError: there are more words, or none.
    """
    match words:
        case [name]:
            return OneBackup(None, name, date)
        case [group, name]:
            return OneBackup(group, name, date)
        case []:
            raise click.UsageError("missing argument 'DOMAIN[@DATE]'")
        case _:
            raise click.UsageError(f"got unexpected extra arguments ({' '.join(words[2:])})")
