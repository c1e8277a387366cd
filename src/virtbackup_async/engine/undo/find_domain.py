"""Finding the domain that a killed backup left on its overlays, whatever its name is now.

``clean`` needs it for each pending file. Since the backup, the domain can have been renamed,
undefined, or defined again with another UUID; the wrong domain must never get the images. The
first of these is the domain:

1. the domain with the UUID of the pending file, or of the XML in it (virt-backup writes no UUID);
2. without a UUID, the domain of that name;
3. if this host has a note of the backup, any domain that uses one of the overlays now;
4. none: a person has to decide about the guest's last writes.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2s
from pathlib import Path
from typing import NoReturn

from virtbackup_async.catalog.definition_file import is_ours
from virtbackup_async.engine.ports import BeforePivot, DomainPort, HypervisorPort
from virtbackup_async.errors import DomainNotFoundError, RollbackError
from virtbackup_async.model.backup import Definition, Pending
from virtbackup_async.model.domain import Sources
from virtbackup_async.model.guest import uuid_of


def lock_name(pending: Pending) -> str:
    """Return the name of the domain's lock: its UUID, or without one a hash of its name."""
    return _domain_key(pending) if pending.copied_from is None else copies_lock_name(pending)


def copies_lock_name(backup: Definition | Pending) -> str:
    """Return the name of the lock on copies of a domain's backups, which do not touch it."""
    return f"copy-{_domain_key(backup)}"


def _domain_key(backup: Definition | Pending) -> str:
    name = backup.domain_name.encode("utf-8", "surrogatepass")
    return uuid_of(backup) or f"name-{blake2s(name, digest_size=16).hexdigest()}"


async def find_domain(
    hypervisor: HypervisorPort, pending: Pending, *, is_noted: bool
) -> "DomainPort | GoneDomain":
    """Return the backed-up domain, or a ``GoneDomain`` if libvirt no longer has it.

    Without a note of this host, the pending file can name the images of any domain; then only the
    domain with its UUID counts. A missing UUID is accepted only in virt-backup's files.

    Raises:
        RollbackError: another domain uses the images: a person has to decide.
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
            continue  # undefined after the names were listed
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
    """A domain that libvirt does not know any more: every call raises ``DomainNotFoundError``."""

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
        raise DomainNotFoundError("libvirt knows no such domain", domain=self.name)
