"""The plan for the complete backups of a target, made before anything is touched.

Shared by ``clean`` and ``clean --dry-run``. A group cleans only the domains that it includes. A
backup stays as long as any group with the same target keeps it, whether or not that group is named
on the command line. A backup that is not understood always stays. Nothing is read, but for
``clean_targets``, and for the target's clock where a group has a protection window.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, tzinfo
from itertools import chain

from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup, Scan
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.schema import Config, Group, Retention
from virtbackup_async.engine.clean.protection import protection_of, window_of
from virtbackup_async.engine.clean.retention import RetentionDecision, decide
from virtbackup_async.engine.host_state import host_name, open_catalog
from virtbackup_async.engine.plan import groups_with_target, target_of
from virtbackup_async.errors import DefinitionError, StorageError
from virtbackup_async.model.packager import Location, packed_files
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile


class CleanTarget(Struct, frozen=True):
    """A target, and the groups that decide about its backups.

    Attributes:
        groups: the groups to clean.
        neighbours: all groups of the configuration with this target; each may keep a backup.
    """

    catalog: Catalog
    groups: tuple[Group, ...]
    neighbours: tuple[Group, ...]

    def group_of(self, domain: str) -> str | None:
        """Return the first cleaned group that includes the domain; None if none does."""
        return next((group.name for group in self.groups if group.includes(domain)), None)

    def policies(self, domain: str) -> list[Retention]:
        """Return the retention of every group that includes the domain."""
        return [group.retention for group in self.neighbours if group.includes(domain)]


def clean_targets(config: Config, group_names: Sequence[str]) -> list[CleanTarget]:
    """Return the targets of the named groups, or of all that have one, each once. Blocks.

    Raises:
        NotFoundError: a named group does not exist.
        ConfigError: it has no target.
        StorageError: a target's real path cannot be found.
    """
    groups = groups_with_target(config, group_names)
    by_target: dict[StorageLocation, list[Group]] = {}
    for group in groups:
        by_target.setdefault(_place_of(group), []).append(group)
    places = {g.name: _place_of(g) for g in config.groups.values() if g.target}
    return [
        CleanTarget(
            open_catalog(config, target_of(members[0])),
            tuple(members),
            tuple(config.groups[name] for name, place in places.items() if place == target),
        )
        for target, members in by_target.items()
    ]


def _place_of(group: Group) -> StorageLocation:
    """Return a group's target, by its real path: so groups with the same target are found."""
    target = target_of(group)
    place = target.plain_directory
    if place is None:
        return target
    try:
        return StorageLocation.of(place.resolve(strict=True))
    except FileNotFoundError:
        return StorageLocation.of(place.absolute())
    except (OSError, RuntimeError) as error:  # in a loop of links, by the version of Python
        raise StorageError(f"cannot read {target}: {error}") from error


def plan_clean(
    target: CleanTarget,
    scan: Scan,
    now: datetime,
    zone: tzinfo | None = None,
    *,
    drop_damaged: bool = False,
) -> Iterator[RetentionDecision]:
    """Decide about each complete backup of the domains that are cleaned, domain by domain. Blocks.

    Args:
        target: the target.
        scan: of the target.
        now: an aware time.
        zone: the time zone of the periods; None for the local one.
        drop_damaged: whether to drop damaged backups that are older than a good one.
    """
    unclear = _Unclear(target.catalog, scan)
    by_domain: dict[str, list[FoundBackup]] = {}
    for found in scan.complete:
        by_domain.setdefault(found.definition.domain_name, []).append(found)
    for domain in sorted(name for name in by_domain if target.group_of(name) is not None):
        clear = []
        for found in by_domain[domain]:
            reason = unclear.reason(found)
            if reason is None:
                clear.append(found)
            else:
                yield RetentionDecision(found, keep=True, reasons=(f"not understood: {reason}",))
        policies = target.policies(domain)
        window = window_of(target.neighbours, domain)
        protection = protection_of(target.catalog.target, clear, window)
        yield from decide(
            clear, policies, now, zone, drop_damaged=drop_damaged, protection=protection
        )


def why_unclear(catalog: Catalog, scan: Scan, found: FoundBackup) -> str | None:
    """Return why a complete backup is not understood; None if it is like any other."""
    return _Unclear(catalog, scan).reason(found)


class _Unclear:
    """Finds the backups to which no rule may be applied."""

    def __init__(self, catalog: Catalog, scan: Scan) -> None:
        self._catalog = catalog
        self._pending = {found.path.stored_name for found in scan.pending}
        self._names = {found.path: self._names_of(found) for found in scan.complete}
        self._uses = Counter(chain.from_iterable(self._names.values()))
        self._directories: dict[str, TargetFile] = {}
        # Many hosts may share a bucket; who can write to a directory is up to its admin.
        self._owners = {} if catalog.target.is_local else _owners(scan)

    def reason(self, found: FoundBackup) -> str | None:
        """Return why no rule may be applied; None if the rules apply."""
        if found.path.parent != self._directory(found.definition.domain_name):
            return "it lies in another domain's directory"
        owner = self._owners.get(_guest(found))
        if owner is not None and owner != host_name():
            return f"it belongs to the host {owner}"
        if self._pending and f"{found.path.stored_name}.pending" in self._pending:
            return "its pending file is still there"
        names = self._names[found.path]
        if not names:
            return f"packager {found.definition.packager.type!r:.40}"
        if any(self._uses[name] > 1 for name in names):
            return "another backup has the same files"
        return None

    def _directory(self, domain: str) -> TargetFile:
        if domain not in self._directories:
            self._directories[domain] = self._catalog.domain_directory(domain)
        return self._directories[domain]

    def _names_of(self, found: FoundBackup) -> tuple[str, ...]:
        """Return the names of the package's files in the target; none if nobody knows them."""
        definition, directory = found.definition, found.path.parent.name
        location = Location(definition.packager, self._catalog.target, directory, definition.name)
        try:
            return location.stored_names(packed_files(definition))
        except DefinitionError:
            return ()


def _owners(scan: Scan) -> dict[tuple[str, str | None], str | None]:
    """Return the host of each guest: the one that made its newest backup, None if unknown.

    A guest that migrates takes its UUID along, and its older backups become the new host's.
    """
    return {_guest(found): found.definition.host for found in scan.complete}


def _guest(found: FoundBackup) -> tuple[str, str | None]:
    return found.definition.domain_name, found.definition.domain_uuid
