"""Backups of domains that no group means any more: nobody cleans, verifies or counts them.

A domain was renamed or deleted, or its line in the configuration was. One line of ``list``,
``stats``, ``clean`` and ``doctor`` keeps them from being forgotten. Pure, but for paths that are
resolved: that blocks.
"""

from pathlib import Path

from virtbackup_async.catalog.scanning import Scan
from virtbackup_async.config.schema import Config
from virtbackup_async.events import UnclaimedBackups


def unclaimed_backups(config: Config, target: Path, scan: Scan) -> UnclaimedBackups | None:
    """Return what a target holds of domains that no group with this target means; None if nothing.

    Args:
        config: all groups have a say, those too that are not looked at now.
        target: of a group, as it is written.
        scan: all that it holds.
    """
    place = target.resolve()
    groups = [
        group
        for group in config.groups.values()
        if group.target is not None and group.target.resolve() == place
    ]
    left = [
        found.definition.domain_name
        for found in scan.complete
        if not any(group.includes(found.definition.domain_name) for group in groups)
    ]
    if not left:
        return None
    return UnclaimedBackups(str(target), tuple(sorted(set(left))), len(left))
