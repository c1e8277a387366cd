"""The configuration that a target alone stands for: what is in it can be read and restored.

For the day the host is gone, and its configuration with it. It has one group that means all
domains. No rule of it removes a backup, and it asks for none.
"""

import dataclasses
import os
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from virtbackup_async.config.patterns import parse_pattern
from virtbackup_async.config.schema import Config, Group, HostEntry, Retention
from virtbackup_async.config.target_value import target_location
from virtbackup_async.config.values import WrongValueError
from virtbackup_async.errors import ConfigError
from virtbackup_async.model.storage_location import StorageLocation

ALL_DOMAINS: Final = "r:(?s:.*)"


def config_of_target(named: Path | str, key_file: Path | None = None) -> Config:
    """Return the configuration; its one group has the target's path or URL as its name.

    Args:
        named: the target: a path, or text as a configuration has it.
        key_file: opens an encrypted target.

    Raises:
        ConfigError: it names no target.
    """
    try:
        target = StorageLocation.of(named) if isinstance(named, Path) else target_location(named)
    except WrongValueError as error:
        raise ConfigError(f"target: {error.about(named)}") from error
    if target.is_local:
        target = StorageLocation.of(target.directory.absolute())
    group = Group(
        name=str(target),
        target=replace(target, key_file=key_file and key_file.absolute()),
        autostart_given=True,
        retention=Retention(None, None, None, None, None, None),
        hosts=(HostEntry(parse_pattern(ALL_DOMAINS)),),
    )
    threads = len(os.sched_getaffinity(0))
    return Config(
        path=Path(str(target)), threads=threads, groups={group.name: group}, of_target=True
    )


def with_held_key(config: Config, held_key: str) -> Config:
    """Return a configuration whose encrypted targets open with a key that the process holds.

    Args:
        config: the configuration; of a target alone, that target counts as encrypted.
        held_key: the name of the key.

    Raises:
        ConfigError: no target is encrypted.
    """
    groups = {
        name: dataclasses.replace(group, target=replace(group.target, held_key=held_key))
        for name, group in config.groups.items()
        if group.target is not None and (group.target.is_encrypted or config.of_target)
    }
    if not groups:
        raise ConfigError(f"no group is encrypted in {config.where}", hint="Give no key.")
    return dataclasses.replace(config, groups={**config.groups, **groups})
