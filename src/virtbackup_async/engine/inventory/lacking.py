"""The disks and state that a backup lacks, and the older backups that have them.

A backup can skip a disk: by the configuration, or because the disk could not be read that night. A
restore then does not bring back the domain as it was. Pure; used by all commands that show or
restore backups. Invariant: a disk without data of the domain's own (a CD, a read-only image, a
drive without a medium) does not count as lacking.
"""

from collections.abc import Iterable, Iterator, Sequence

from anyio import CancelScope
from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.inventory.dates import local_time
from virtbackup_async.errors import DefinitionError, NotFoundError, StorageError
from virtbackup_async.model import domain_xml
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.domain import NOT_WANTED
from virtbackup_async.model.guest import Guest

LEFT_OUT = "it is not in the backup"


class Lack(Struct, frozen=True):
    """A disk or a part of the domain's state that a backup does not hold.

    Attributes:
        what: a disk's dev, or a kind of state: ``nvram``, ``tpm``.
        reason: why it was skipped.
        older: the newest earlier backup that has it.
    """

    what: str
    reason: str
    older: FoundBackup | None = None

    def __str__(self) -> str:
        if self.older is None:
            return f"{self.what} is not in it: {self.reason}; no older backup has it"
        return (
            f"{self.what} is not in it: {self.reason}; "
            f"{self.older.definition.name} has it, of {local_time(self.older.definition)}"
        )


def lacks_of(definition: Definition) -> dict[str, str]:
    """Return the disks and state that a backup lacks, and the reasons.

    Includes unrecorded ones, because virt-backup does not record the disks that it skips.
    """
    try:
        own = domain_xml.writable_devs(definition.domain_xml)
    except DefinitionError:
        own = ()  # the XML is lost, the recorded reasons are not
    return {dev: LEFT_OUT for dev in own if dev not in definition.disks} | definition.lacks


def find_lacks(definition: Definition, backups: Iterable[FoundBackup]) -> Iterator[Lack]:
    """Yield the disks and state that a backup lacks, each with the newest earlier backup of it."""
    earlier = [found for found in backups if found.definition.date < definition.date]
    for what, reason in lacks_of(definition).items():
        having = [found for found in earlier if _has(found.definition, what)]
        yield Lack(what, reason, having[-1] if having else None)


def refuse_mixture(definition: Definition, disks: Sequence[str]) -> None:
    """Refuse to mix old disks with today's, unless the admin asked for it.

    Args:
        definition: the backup that is about to replace images of its domain.
        disks: the devs that the admin named; none for all.

    Raises:
        NotFoundError: the backup lacks disks that the configuration wanted.
        DefinitionError: the XML in it cannot be read.
    """
    lacks = lacks_of(definition)
    own = domain_xml.writable_devs(definition.domain_xml) if lacks else ()
    devs = [dev for dev in own if dev in lacks and lacks[dev] != NOT_WANTED]
    if devs and not disks:
        raise NotFoundError(
            f"the backup lacks disks, which would stay as they are: {', '.join(devs)}",
            hint="Take a backup that has them, name the disks with --disk, or give "
            "--allow-missing.",
        )


async def up_to(catalog: Catalog, guest: Guest, backup: str) -> tuple[FoundBackup, ...]:
    """Return a guest's complete backups up to a new one; none if the target cannot be read.

    The new backup is made anyway, and a signal must not turn it into a cancelled one.
    """
    try:
        with CancelScope(shield=True):
            complete = (await catalog.scan_guest(guest)).complete
    except StorageError:
        return ()
    names = [found.definition.name for found in complete]
    return complete[: names.index(backup) + 1] if backup in names else ()


def missing_since_last(complete: Sequence[FoundBackup], backup: str) -> tuple[str, ...]:
    """Return the disks that a new backup lacks and the previous one has.

    Disks that were removed from the configuration or the domain do not count.
    """
    names = [found.definition.name for found in complete]
    if backup not in names:
        return ()
    definition = complete[names.index(backup)].definition
    before = [found for found in complete if found.definition.date < definition.date]
    had = before[-1].definition.disks if before else {}
    lacks = lacks_of(definition).items()
    return tuple(what for what, reason in lacks if what in had and reason != NOT_WANTED)


def _has(definition: Definition, what: str) -> bool:
    if definition.is_damaged:
        return False
    kinds = {state.kind for state in definition.state_files}
    return what in definition.disks or (what in kinds and what not in definition.skipped)
