"""Backups of domains that are no longer in a group: no command cleans, verifies or counts them.

The domain, or its line in the configuration, was renamed or deleted. One line of ``list``,
``stats``, ``clean`` and ``doctor`` keeps them from being forgotten. Pure, except that it resolves
paths, which blocks.
"""

from collections import Counter

from virtbackup_async.catalog.scanning import Scan
from virtbackup_async.config.schema import Config
from virtbackup_async.events import UnclaimedBackups
from virtbackup_async.model.storage_location import StorageLocation


def unclaimed_backups(
    config: Config, target: StorageLocation, scan: Scan
) -> UnclaimedBackups | None:
    """Return a target's backups of domains in no group with this target; None if there are none.

    Args:
        config: all its groups count, even those that the command does not process.
        target: a group's target, as in the configuration.
        scan: everything in the target.
    """
    place = _real(target)
    groups = [
        group
        for group in config.groups.values()
        if group.target is not None and _real(group.target) == place
    ]
    backups = Counter(found.definition.domain_name for found in scan.complete)
    left = [name for name in backups if not any(group.includes(name) for group in groups)]
    if not left:
        return None
    number = sum(backups[name] for name in left)
    return UnclaimedBackups(str(target), tuple(sorted(left)), number)


def _real(target: StorageLocation) -> StorageLocation:
    """Return a target by its real path, which two groups may name in different ways."""
    place = target.plain_directory
    return target if place is None else StorageLocation.of(place.resolve())
