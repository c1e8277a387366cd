"""What the words behind ``verify`` and ``copy`` mean: groups, domains, and single backups."""

import re
from collections.abc import Sequence
from typing import Final

from virtbackup_async.config.patterns import pattern_of
from virtbackup_async.engine.inventory.chosen_backup import NamedBackup, find_named
from virtbackup_async.engine.inventory.group_backups import (
    GroupBackups,
    choose_backups,
    split_words,
)
from virtbackup_async.engine.runtime import Runtime

_MAY_BE_A_BACKUP: Final = re.compile(r"@|/|\A\d{8}-\d{6}_")


async def choose_by_words(
    runtime: Runtime, words: Sequence[str], domains: Sequence[str] = ()
) -> list[GroupBackups]:
    """Return the backups that words name: those of groups, of domains, and single ones.

    Domains next to groups are those of these groups. A domain without a date stands for all its
    backups, because the command takes many.

    Args:
        runtime: has the configuration and the clock.
        words: groups, domains and single backups; no group for all that have a target.
        domains: names or patterns; none for all domains of the groups.

    Raises:
        NotFoundError: there is no such group, domain or backup.
        ConfigError: a name can mean several backups, or a date or pattern cannot be understood.
        StorageError: a target cannot be read that may have a named backup.
    """
    groups, names = split_words(runtime.config, words)
    group = groups[0] if len(groups) == 1 else None
    named = [
        await find_named(runtime, group, name) for name in names if _MAY_BE_A_BACKUP.search(name)
    ]
    singles = [_alone(one) for one in named if one.has_date]
    whole = [one for one in named if not one.has_date]
    plain = [name for name in names if not _MAY_BE_A_BACKUP.search(name)]
    found = [
        each
        for one in whole
        for each in await choose_backups(runtime.config, [one.group], [pattern_of(one.word)])
    ]
    patterns = [*domains, *map(pattern_of, plain)]
    if patterns or not names:
        found += await choose_backups(runtime.config, groups, patterns)
    return [*found, *singles]


def _alone(named: NamedBackup) -> GroupBackups:
    def is_it(domain: str) -> bool:
        return domain == named.domain

    return GroupBackups(
        named.group,
        (named.found,) if named.found is not None else (),
        (named.problem,) if named.problem is not None else (),
        None,
        is_it,
        is_it,
        named.target,
        named.scan,
        (named.guest,),
        named.known,
    )
