"""Which domain a killed backup left on its overlays, whatever it is called by now.

``clean`` asks it for each pending file. A domain may have been renamed, undefined, or defined anew
with another UUID since; the images must never be given to the wrong one. In this order:

1. the domain with the UUID of the pending file, or of the XML in it (virt-backup writes no UUID);
2. without a UUID, the domain of that name;
3. whichever domain names one of the overlays now, if this host noted the backup itself;
4. none: a person decides what becomes of what the guest wrote last.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2s
from pathlib import Path
from typing import NoReturn

from virtbackup_async.catalog.definition_file import is_ours
from virtbackup_async.engine.ports import BeforePivot, DomainPort, HypervisorPort
from virtbackup_async.errors import DomainNotFoundError, RollbackError
from virtbackup_async.model.backup import Pending
from virtbackup_async.model.domain import Sources
from virtbackup_async.model.domain_xml import canonical_uuid, uuid


def uuid_of(pending: Pending) -> str | None:
    """Return the UUID of the domain that was backed up, None where the file does not tell."""
    return canonical_uuid(pending.domain_uuid) or uuid(pending.domain_xml)


def lock_name(pending: Pending) -> str:
    """Return what the domain's lock is on: its UUID, or in want of one a hash of its name."""
    name = pending.domain_name.encode("utf-8", "surrogatepass")
    return uuid_of(pending) or f"name-{blake2s(name, digest_size=16).hexdigest()}"


async def find_domain(
    hypervisor: HypervisorPort, pending: Pending, *, is_noted: bool
) -> "DomainPort | GoneDomain":
    """Return the domain to put back; one that is nowhere defined where there is none.

    Without a note of this host the file may name the images of any domain: then it is the one of
    its UUID, or none. Only virt-backup's files may do without a UUID.

    Raises:
        RollbackError: the images are in use by another domain: a person has to look at it.
        HypervisorError: libvirt cannot be asked.
    """
    wanted = uuid_of(pending)
    try:
        if wanted is not None:
            return await hypervisor.domain_by_uuid(wanted)
        if not is_ours(pending.version):
            return await hypervisor.domain(pending.domain_name)
    except DomainNotFoundError:
        if is_noted:
            user = await _user_of_images(hypervisor, pending)
            return user or GoneDomain(pending.domain_name)
    return GoneDomain(pending.domain_name)


async def _user_of_images(hypervisor: HypervisorPort, pending: Pending) -> DomainPort | None:
    disks = [disk for disk in pending.disks.values() if disk.snapshot is not None]
    overlays = {Path(disk.snapshot or "") for disk in disks}
    images = {Path(disk.src) for disk in disks}
    on_an_image = None
    for name in await hypervisor.domain_names():
        try:
            domain = await hypervisor.domain(name)
            used = _paths(await domain.sources())
        except DomainNotFoundError:
            continue  # undefined since the names were listed
        if used & overlays:
            return domain
        if used & images:
            on_an_image = name
    if on_an_image is not None:
        raise RollbackError(
            f"{pending.domain_name} is gone, and {on_an_image} uses its image now",
            hint="Look at the overlay and the image, then remove the overlay or commit it.",
        )
    return None


def _paths(sources: Sources) -> set[Path]:
    sides: Iterable[Mapping[str, Path] | None] = (sources.live, sources.persistent)
    return {path for side in sides for path in (side or {}).values()}


class GoneDomain:
    """A domain that libvirt does not know any more, for ``revert_overlay``'s row of that name."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def sources(self) -> Sources:
        self._say()

    async def snapshot_names(self) -> tuple[str, ...]:
        self._say()

    async def commit(self, dev: str, before_pivot: BeforePivot, *, resume: bool = False) -> None:
        self._say(dev, before_pivot, resume)

    async def thaw(self) -> int | None:
        self._say()

    async def end_backup(self, socket: Path) -> None:
        self._say(socket)

    async def delete_checkpoint(self, name: str, devs: Iterable[str]) -> bool:
        self._say(name, devs)

    async def resume(self) -> None:
        self._say()

    async def set_persistent_source(self, dev: str, path: Path, image_format: str) -> None:
        self._say(dev, path, image_format)

    async def set_saved_source(self, dev: str, path: Path, image_format: str) -> None:
        self._say(dev, path, image_format)

    def _say(self, *_: object) -> NoReturn:
        raise DomainNotFoundError(f"{self.name}: libvirt knows no such domain")
