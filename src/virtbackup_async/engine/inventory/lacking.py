"""What is missing from a backup, and which older backup has it.

A disk may be left out of a backup: by the configuration, or because it could not be read that
night. What is restored is then not the domain as it was. Pure; asked by all that show or restore
backups. Invariant: a disk that holds nothing of the domain's own (a CD, a read-only image, one
without a medium) is not missed.
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

LEFT_OUT = "it is not in the backup"


class Lack(Struct, frozen=True):
    """Something of the domain that a backup does not hold.

    Attributes:
        what: a disk's dev, or a kind of state: ``nvram``, ``tpm``.
        reason: why it was left out.
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
    """Return what a backup lacks, disks and state, and why.

    Also what nobody noted: virt-backup does not say which disks it leaves out.
    """
    try:
        own = domain_xml.writable_devs(definition.domain_xml)
    except DefinitionError:
        own = ()  # the XML is lost; what was noted is not
    return {dev: LEFT_OUT for dev in own if dev not in definition.disks} | definition.lacks


def find_lacks(definition: Definition, backups: Iterable[FoundBackup]) -> Iterator[Lack]:
    """Yield what a backup lacks, with the newest earlier backup that has it."""
    earlier = [found for found in backups if found.definition.date < definition.date]
    for what, reason in lacks_of(definition).items():
        having = [found for found in earlier if _has(found.definition, what)]
        yield Lack(what, reason, having[-1] if having else None)


def refuse_mixture(definition: Definition, disks: Sequence[str]) -> None:
    """Refuse to mix old disks with today's unless that was asked for.

    Args:
        definition: the backup that is about to replace images of its domain.
        disks: the devs that were named; none for all.

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


async def missing_since_last(catalog: Catalog, domain: str, backup: str) -> tuple[str, ...]:
    """Return the disks that a new backup lacks and the previous one has.

    What was taken out of the configuration, or out of the domain, is not missed. Nothing is where
    the target cannot be read: the backup is made all the same.
    """
    try:
        # The backup is made: a signal must not turn it into one that was cancelled.
        with CancelScope(shield=True):
            complete = (await catalog.scan_domain(domain)).complete
    except StorageError:
        return ()
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
