"""The configuration that a target alone stands for: what is in it can be read and restored.

For the day the host is gone, and its configuration with it. It has one group that means all
domains. No rule of it removes a backup, and it asks for none.
"""

import os
from pathlib import Path
from typing import Final

from virtbackup_async.config.patterns import parse_pattern
from virtbackup_async.config.schema import Config, Group, HostEntry, Retention
from virtbackup_async.model.storage_location import StorageLocation

ALL_DOMAINS: Final = "r:(?s:.*)"


def config_of_target(target: Path) -> Config:
    """Return the configuration; its one group has the target's path as its name."""
    place = target.absolute()
    group = Group(
        name=str(place),
        target=StorageLocation.of(place),
        autostart_given=True,
        retention=Retention(None, None, None, None, None, None),
        hosts=(HostEntry(parse_pattern(ALL_DOMAINS)),),
    )
    threads = len(os.sched_getaffinity(0))
    return Config(path=place, threads=threads, groups={group.name: group}, of_target=True)
