"""What a shell offers on Tab: the groups of the configuration, the domains that have backups.

Cheap on purpose: the configuration and the names of directories are read, no definition, and
libvirt is never asked. Whatever goes wrong offers nothing: a prompt is no place for errors.
"""

import os
from collections.abc import Iterable

import click

from virtbackup_async.cli.settings import Settings
from virtbackup_async.errors import VirtBackupError


def group_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the groups of the configuration."""
    return _beginning(_targets(ctx), incomplete)


def domain_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the domains in the target of the group that was typed, else in all targets."""
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
    """Return each group's target; the ``-c`` before the command counts."""
    # The shell asks for the names of commands far more often: they need no YAML.
    from virtbackup_async.config.loading import load_config  # noqa: PLC0415 -- see above

    above = ctx.parent.params.get("config_path") if ctx.parent else None
    path = above or ctx.ensure_object(Settings).config_path
    try:
        groups = load_config(path).groups
    except VirtBackupError:
        return {}
    return {name: str(group.target) if group.target else None for name, group in groups.items()}


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    # Nothing that could end its line, or mean something to the shell's own script.
    return sorted(name for name in names if name.startswith(incomplete) and name.isprintable())
