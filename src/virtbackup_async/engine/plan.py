"""The plan of a run: from the configured groups and the existing domains to a list of backups.

``session`` plans a run before anything is touched, and ``list --all`` shows the plan. This module
is pure: the domains' names come from the caller.
"""

import json
from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.config.patterns import PatternKind
from virtbackup_async.config.schema import Config, Group, HostEntry
from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.engine.chosen_domains import ChosenGroup, choose_groups, names_domain
from virtbackup_async.errors import ConfigError, NotFoundError
from virtbackup_async.model.storage_location import StorageLocation


class PlannedBackup(Struct, frozen=True):
    """One backup of one domain.

    Attributes:
        group: the first group that wants it; its target and packager are used.
        disks: devs to back up; empty for all.
        also_in: other groups that want the same backup.
        note: what the admin wants to remember of it; goes into its definition.
        pinned: whether `clean` must never remove it.
    """

    group: Group
    domain: str
    disks: tuple[str, ...]
    quiesce: bool
    also_in: tuple[str, ...] = ()
    note: str | None = None
    pinned: bool = False


class PlannedMissing(Struct, frozen=True):
    """A domain that a group names and that does not exist; or such a group."""

    group: str
    pattern: str
    reason: str = "libvirt knows no such domain"


class Plan(Struct, frozen=True):
    """The work of a run; ``warnings`` are lines for the admin."""

    backups: tuple[PlannedBackup, ...]
    missing: tuple[PlannedMissing, ...]
    warnings: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be backed up, and nothing is missing."""
        return not self.backups and not self.missing

    @property
    def emptiness(self) -> str:
        """Why nothing is to be backed up."""
        return "; ".join(self.warnings) or "the configuration has no groups"


def plan_backups(config: Config, names: Sequence[str], domain_names: Sequence[str]) -> Plan:
    """Return the work of a run.

    Args:
        config: the configuration.
        names: groups, and single domains of groups (see ``choose_groups``); none for the groups
            with ``autostart``.
        domain_names: all domains of the hypervisor.

    Raises:
        NotFoundError: a name is neither a group nor a domain of one.
        ConfigError: a group of the run has no target, or a named domain has several.
    """
    choice = choose_groups(config, names, domain_names)
    warnings = list(choice.warnings)
    chosen = choice.groups or tuple(map(ChosenGroup, _autostarted(config, warnings)))
    planned: dict[str, PlannedBackup] = {}
    missing: list[PlannedMissing] = []
    for one in chosen:
        target_of(one.group)
        absent = [lost for lost in _missing(one.group, domain_names) if one.wants(lost.pattern)]
        backups = [back for back in _backups(one.group, domain_names) if one.wants(back.domain)]
        if not backups and not absent:
            warnings.append(f"group {one.group.name} matches no domain")
        missing += absent
        for backup in backups:
            work = _work(backup)
            planned[work] = _merged(planned[work], backup) if work in planned else backup
    return Plan(tuple(planned.values()), tuple(missing), tuple(warnings))


def select_groups(config: Config, group_names: Iterable[str]) -> list[Group]:
    """Return the groups of these names, each once, in the given order.

    Raises:
        NotFoundError: a group does not exist.
    """
    return [find_group(config, name) for name in dict.fromkeys(group_names)]


def groups_with_target(config: Config, group_names: Iterable[str]) -> list[Group]:
    """Return the groups of these names; without names, all groups with a target.

    Raises:
        NotFoundError: a group does not exist.
        ConfigError: no group has a target.
    """
    groups = select_groups(config, group_names)
    groups = groups or [group for group in config.groups.values() if group.target]
    if not groups:
        what = "no group of it has a target" if config.groups else "it has no groups"
        raise ConfigError(
            f"{what}",
            path=config.where,
            hint="Write target: and a directory in a group, or in default.",
        )
    return groups


def find_group(config: Config, name: str) -> Group:
    """Return the group of that name.

    Raises:
        NotFoundError: there is none.
    """
    if name not in config.groups:
        groups = [group.name for group in config.groups.values() if names_domain(group, name)]
        hint = (
            f"{name} is a domain of group {', '.join(groups)}: name the group." if groups else None
        )
        meant = "" if groups else did_you_mean(name, config.groups)
        raise NotFoundError(f"no group {name!r} in {config.where}{meant}", hint=hint)
    return config.groups[name]


def target_of(group: Group) -> StorageLocation:
    """Return the group's target.

    Raises:
        ConfigError: it has none.
    """
    if group.target is None:
        raise ConfigError(
            f"group {group.name} has no target",
            hint="Write target: and a directory in the group, or in default.",
        )
    return group.target


def _autostarted(config: Config, warnings: list[str]) -> list[Group]:
    silent = config.groups_without_autostart
    # Who never had virt-backup need not hear of it every night; `config check` tells everybody.
    if silent and config.is_virt_backups:
        warnings.append(
            f"passed over without an autostart key: {', '.join(silent)}; virt-backup 0.5.6 would "
            "have backed them up: write autostart: true or false"
        )
    groups = [group for group in config.groups.values() if group.autostart]
    if config.groups and not groups:
        warnings.append("no group has autostart: true, and none was named")
    return groups


def _missing(group: Group, domain_names: Sequence[str]) -> list[PlannedMissing]:
    known = frozenset(domain_names)
    patterns = [entry.pattern for entry in group.hosts]
    excluded = {pattern.value for pattern in patterns if pattern.excludes}
    domains = [
        PlannedMissing(group.name, pattern.text)
        for pattern in patterns
        if pattern.kind is PatternKind.NAME and pattern.value not in known | excluded
    ]
    lost = [
        PlannedMissing(group.name, pattern.text, "there is no such group")
        for pattern in patterns
        if pattern.is_lost and not pattern.excludes
    ]
    return domains + lost


def _backups(group: Group, domain_names: Sequence[str]) -> Iterable[PlannedBackup]:
    for domain in dict.fromkeys(domain_names):
        if group.includes(domain):
            entries = [entry for entry in group.hosts if entry.pattern.matches(domain)]
            quiesce = [entry.quiesce for entry in entries if entry.quiesce is not None]
            yield PlannedBackup(
                group=group,
                domain=domain,
                disks=_disks(entries),
                quiesce=quiesce[0] if quiesce else group.quiesce,
            )


def _disks(entries: Sequence[HostEntry]) -> tuple[str, ...]:
    """Return the disks of all entries together; an entry without disks wants all."""
    if not all(entry.disks for entry in entries):
        return ()
    return tuple(dict.fromkeys(dev for entry in entries for dev in entry.disks))


def _work(backup: PlannedBackup) -> str:
    """Return a key that is equal for two backups that do the same work."""
    packager = backup.group.packager
    parts = (backup.domain, str(target_of(backup.group)), packager.type, packager.opts)
    return json.dumps(parts, sort_keys=True)


def _merged(first: PlannedBackup, other: PlannedBackup) -> PlannedBackup:
    all_disks = not first.disks or not other.disks
    return replace(
        first,
        disks=() if all_disks else tuple(dict.fromkeys((*first.disks, *other.disks))),
        quiesce=first.quiesce or other.quiesce,
        also_in=(*first.also_in, other.group.name),
    )
