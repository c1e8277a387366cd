"""The plan for the complete backups of a target, made before anything is touched.

Guests are told apart as in ``inventory/guests.py``. Where hosts share a target, only the host of a
guest's newest backup removes any of its backups.

Shared by ``clean`` and ``clean --dry-run``. A group cleans only the domains that it includes. A
backup stays as long as any group with the same target keeps it, whether or not that group is named
on the command line. A backup that is not understood always stays. Nothing is read, but for
``clean_targets``, and for the target's clock where a group has a protection window.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, tzinfo
from itertools import chain

from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup, Scan
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.schema import Config, Group, Retention
from virtbackup_async.engine.clean.jumps import find_jump
from virtbackup_async.engine.clean.protection import protection_of, window_of
from virtbackup_async.engine.clean.retention import RetentionDecision, decide
from virtbackup_async.engine.host_state import host_name, open_catalog
from virtbackup_async.engine.inventory.guests import Guests
from virtbackup_async.engine.plan import groups_with_target, target_of
from virtbackup_async.errors import DefinitionError, StorageError
from virtbackup_async.model.guest import guest_of
from virtbackup_async.model.packager import Location, packed_files
from virtbackup_async.model.storage_location import StorageLocation


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
    """Decide about each complete backup of the domains that are cleaned, guest by guest. Blocks.

    Args:
        target: the target.
        scan: of the target.
        now: an aware time.
        zone: the time zone of the periods; None for the local one.
        drop_damaged: whether to drop damaged backups that are older than a good one.
    """
    unclear = _Unclear(target.catalog, scan, is_keeper=is_keeper(target.neighbours))
    for guest in unclear.guests.all:
        if target.group_of(guest.name) is None:
            continue
        clear = []
        for found in guest.backups:
            reason = unclear.reason(found)
            if reason is None:
                clear.append(found)
            else:
                yield RetentionDecision(found, keep=True, reasons=(f"not understood: {reason}",))
        policies = target.policies(guest.name)
        window = window_of(target.neighbours, guest.name)
        protection = protection_of(target.catalog.target, clear, window)
        yield from decide(
            clear,
            policies,
            now,
            zone,
            drop_damaged=drop_damaged,
            protection=protection,
            jump=find_jump(clear),
        )


def is_keeper(groups: Iterable[Group]) -> bool:
    """Return whether this host cleans a target for all hosts, as its groups there say."""
    return any(group.protect is not None for group in groups)


def why_unclear(config: Config, catalog: Catalog, scan: Scan, found: FoundBackup) -> str | None:
    """Return why a complete backup is not understood; None if it is like any other."""
    groups = (group for group in config.groups.values() if group.target == catalog.target)
    return _Unclear(catalog, scan, is_keeper=is_keeper(groups)).reason(found)


class _Unclear:
    """Finds the backups to which no rule may be applied."""

    def __init__(self, catalog: Catalog, scan: Scan, *, is_keeper: bool) -> None:
        self.guests = Guests(scan)
        self._catalog = catalog
        self._pending = {found.path.stored_name for found in scan.pending}
        self._names = {found.path: self._names_of(found) for found in scan.complete}
        self._uses = Counter(chain.from_iterable(self._names.values()))
        # Many hosts may share a bucket; who can write to a directory is up to its admin.
        self._has_owners = not (catalog.target.is_local or is_keeper)

    def reason(self, found: FoundBackup) -> str | None:
        """Return why no rule may be applied; None if the rules apply."""
        if found.path.parent not in self._catalog.directories(guest_of(found.definition)):
            return "it lies in another domain's directory"
        owner = self.guests.of(found).host if self._has_owners else None
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

    def _names_of(self, found: FoundBackup) -> tuple[str, ...]:
        """Return the names of the package's files in the target; none if nobody knows them."""
        definition, directory = found.definition, found.path.parent.name
        location = Location(definition.packager, self._catalog.target, directory, definition.name)
        try:
            return location.stored_names(packed_files(definition))
        except DefinitionError:
            return ()
