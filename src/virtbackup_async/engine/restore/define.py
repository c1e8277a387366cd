"""Defining the domain of a restored backup in libvirt: ``restore --define``.

::

    check that the name, and the UUID if it is kept, are free      nothing is touched yet
    restore the images, checked                                    ``to_directory.py``
    rebase the images onto the restored ones below them
    define, restore the domain's UEFI variables and TPM state      ``state.py``
    start it if requested

If libvirt refuses to define or start the domain, the restored files stay.
"""

from collections.abc import Awaitable
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

from virtbackup_async.engine.ports import DomainPort, HypervisorPort
from virtbackup_async.engine.restore.plan import (
    AS_THEY_WERE,
    QCOW2,
    Formats,
    RestoredDisk,
    RestorePlan,
    plan_restore,
    xml_of,
)
from virtbackup_async.engine.restore.state import give_state
from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import DomainNotFoundError, HypervisorError, NotFoundError
from virtbackup_async.events import DomainDefined, RestoreDone, Warned
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model.backup import Definition
from virtbackup_async.model.domain import BackingImage
from virtbackup_async.model.domain_xml import writable_devs
from virtbackup_async.model.restored_xml import RestoredXml, StateHome, restored_xml
from virtbackup_async.model.target_file import AnyFile


class DefineRequest(Struct, frozen=True):
    """The domain to define.

    Attributes:
        definition: the backup.
        directory: the directory of its package.
        target: the directory that it is restored into.
        disks: the devs to restore; empty for all.
        new_name: gives the domain an identity of its own.
        start: whether to start it.
        allow_missing: start it although disks are missing from the backup.
        formats: the formats that the disks get.
    """

    definition: Definition
    directory: AnyFile
    target: Path
    disks: tuple[str, ...] = ()
    new_name: str | None = None
    start: bool = False
    allow_missing: bool = False
    formats: Formats = AS_THEY_WERE

    @property
    def files(self) -> RestoreRequest:
        """The restore into the directory that comes first."""
        return RestoreRequest(
            self.definition,
            self.directory,
            self.target,
            self.disks,
            for_domain=True,
            formats=self.formats,
        )

    def plan(self) -> RestorePlan:
        """Return the plan of that restore."""
        return plan_restore(self.definition, self.disks, self.formats)

    def missing(self) -> tuple[str, ...]:
        """Return the disks that hold data and will not be on restored images."""
        restored = self.plan().devs
        devs = writable_devs(self.definition.domain_xml)
        return tuple(dev for dev in devs if dev not in restored)

    def unwanted(self) -> tuple[str, ...]:
        """Return the disks that are missing by accident: none if ``disks`` is given."""
        return () if self.disks else self.missing()

    def xml(self, own: frozenset[Path] = frozenset()) -> RestoredXml:
        """Return the domain's XML, with the paths of the restored images and state.

        Args:
            own: the directories in which libvirt keeps UEFI variables and pstore; restored state
                gets no other place.
        """
        plan = self.plan()
        target = self.target.absolute()
        images = {disk.dev: target / disk.images[0].name for disk in plan.disks}
        held: dict[str, Path] = {}
        for file in plan.state:
            held.setdefault(file.kind, target / file.image.name)
        return restored_xml(
            xml_of(self.definition),
            images,
            formats={disk.dev: QCOW2 for disk in plan.disks if disk.images[0].wrapped},
            below={
                disk.dev: [target / image.name for image in disk.images[1:]] for disk in plan.disks
            },
            new_name=self.new_name,
            state=StateHome(own, held),
        )


class RestoredDomain(Struct, frozen=True):
    """The restored files, and the domain that was defined on them."""

    files: RestoreDone
    domain: DomainDefined


async def restore_domain(runtime: Runtime, request: DefineRequest) -> RestoredDomain:
    """Restore the disks of a backup into a directory, and define its domain on them.

    Raises:
        HypervisorError: a domain of that name or UUID exists, or libvirt refuses to define it;
            then the restored files stay.
        DefinitionError: the backup's XML cannot be used.
        NotFoundError: the domain is to be started, and the backup lacks some of its disks.
        StorageError: as for ``restore_backup``, or the domain's state cannot be put where it
            belongs; then it is not started.
        ImageError: an overlay cannot be rebased.
        CorruptError, RollbackError: as for ``restore_backup``.
    """
    await check_definable(request, runtime.hypervisor)
    files = await restore_backup(runtime, request.files)
    domain = await _define(runtime, request)
    runtime.emit(domain)
    return RestoredDomain(files, domain)


async def check_definable(request: DefineRequest, hypervisor: HypervisorPort) -> None:
    """Check, before anything is restored, that the domain can be defined afterwards.

    Raises:
        HypervisorError: a domain of that name or UUID exists.
        DefinitionError: the backup's XML cannot be used.
        NotFoundError: it is to be started, and the backup lacks some of its disks.
    """
    wanted = request.xml()
    missing = request.unwanted()
    if request.start and missing and not request.allow_missing:
        # How a guest reacts to old disks next to current ones, or without them, is unknown.
        raise NotFoundError(
            f"the backup lacks disks of the domain, so it is not started: {', '.join(missing)}",
            hint="Take a backup that has them, leave --start out, or give --allow-missing.",
        )
    taken = await _is_taken(hypervisor.domain(wanted.name))
    if not taken and wanted.uuid is not None:
        taken = await _is_taken(hypervisor.domain_by_uuid(wanted.uuid))
    if taken is not None:
        raise HypervisorError(
            f"libvirt has a domain {taken.name} with UUID {taken.uuid} already",
            hint="Give the restored one another name with --name, restore --in-place, "
            "or undefine the domain first.",
        )


async def _define(runtime: Runtime, request: DefineRequest) -> DomainDefined:
    """Define the domain on its restored images.

    Raises:
        HypervisorError: libvirt refuses; the restored images stay.
        ImageError: an overlay cannot be rebased.
        StorageError: its state cannot be put where it belongs; the domain is not started.
    """
    hypervisor, emit = runtime.hypervisor, runtime.emit
    wanted = request.xml(await hypervisor.state_directories())
    for dev in wanted.left_out:
        message = f"{dev} is not in the backup, and the original's is not shared: left out"
        emit(Warned(message, wanted.name))
    for what in wanted.unshared:
        emit(Warned(f"not shared with the original: left out, {what}", wanted.name))
    for what in wanted.moved:
        emit(Warned(what, wanted.name))
    for dev in request.missing() if request.new_name is None else ():
        message = f"{dev} is not restored: the domain is on its image of today there"
        emit(Warned(message, wanted.name))
    plan = request.plan()
    target = request.target.absolute()
    images = runtime.host.images
    rebased = [name for disk in plan.disks for name in await _join_chain(images, disk, target)]
    try:
        domain = await hypervisor.define(wanted.xml)
        await give_state(images, plan, target, await domain.info(), emit)
        if request.start:
            await domain.start()
    except HypervisorError as error:
        hint = f"The restored images are whole, in {request.target}, with the domain's XML."
        raise error.as_kind(HypervisorError, hint=hint) from error
    return DomainDefined(
        domain.name, domain.uuid, request.definition.name, request.start, tuple(rebased)
    )


async def _is_taken(lookup: Awaitable[DomainPort]) -> DomainPort | None:
    try:
        return await lookup
    except DomainNotFoundError:
        return None


async def _join_chain(images: ImageHost, disk: RestoredDisk, target: Path) -> list[str]:
    """Let each image of a chain name the restored one below it; return the files changed.

    Raises:
        ImageError: the header of one cannot be read or written.
    """
    changed = []
    for upper, lower in pairwise(disk.images):
        if upper.record is None or lower.record is None:
            continue
        image = BackingImage(target / upper.name, upper.record.format)
        below = BackingImage(target / lower.name, lower.record.format)
        header = await images.info(image)
        if header.backing_filename != str(below.path):
            await images.rebase(image, below)
            changed.append(upper.name)
    return changed
