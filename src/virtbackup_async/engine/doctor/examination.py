"""The examination of the host, the targets and the domains; every finding is an event.

Called by the ``doctor`` command. If libvirt does not answer, it checks everything else.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread
from msgspec import Struct, field

from virtbackup_async.catalog.host_notes import Notes
from virtbackup_async.catalog.scanning import Scan
from virtbackup_async.config.schema import Config, Group
from virtbackup_async.engine.doctor import (
    agent,
    configuration,
    disks,
    history,
    host,
    leftovers,
    target,
)
from virtbackup_async.engine.doctor.append_only import check_append_only
from virtbackup_async.engine.doctor.heads import check_heads
from virtbackup_async.engine.doctor.object_lock import check_object_lock
from virtbackup_async.engine.doctor.recovery_key import check_recovery_key
from virtbackup_async.engine.domain_states import SAVED
from virtbackup_async.engine.host_state import Host, host_name
from virtbackup_async.engine.plan import PlannedBackup, plan_backups, select_groups
from virtbackup_async.engine.ports import DomainPort, HypervisorPort
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import HypervisorError, StorageError, VirtBackupError
from virtbackup_async.events import Emit, Finding, Level
from virtbackup_async.model import domain_xml
from virtbackup_async.model.domain import DomainInfo
from virtbackup_async.model.storage_location import StorageLocation

PARALLEL_DOMAINS = 8


class _Examination(Struct):
    """The subjects of one run, and the facts found so far.

    Attributes:
        groups: those with a target.
        scans: by target, of the targets that can be read.
        domain_names: all that libvirt knows; None if it does not answer.
        images: by domain, of all disks that have one.
        at_work: the images of domains whose lock is held.
    """

    config: Config
    groups: Sequence[Group]
    emit: Emit
    host: Host
    freeze: bool
    scans: dict[StorageLocation, Scan] = field(default_factory=dict)
    domain_names: tuple[str, ...] | None = None
    images: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    at_work: frozenset[Path] = frozenset()
    notes: Notes = Notes(())

    def tell(self, findings: Iterable[Finding]) -> None:
        # Two groups can lead to the same finding.
        for finding in dict.fromkeys(findings):
            self.emit(finding)

    def groups_of(self, place: StorageLocation) -> list[Group]:
        return [group for group in self.groups if group.target == place]


class DoctorRequest(Struct, frozen=True):
    """What to examine.

    Attributes:
        groups: none for all of them.
        freeze: freeze the guests for a moment, to see how long it takes.
    """

    groups: Sequence[str] = ()
    freeze: bool = False


async def run_doctor(runtime: Runtime, request: DoctorRequest) -> tuple[Finding, ...]:
    """Examine the named groups, or all; return the findings, and emit each of them.

    Raises:
        NotFoundError: a named group does not exist.
        ConfigError: the environment names no absolute path for the state directory.
    """
    runtime, recording = runtime.recording(Finding)
    await _examine(runtime, request)
    return recording.of(Finding)


async def _examine(runtime: Runtime, request: DoctorRequest) -> None:
    config = runtime.config
    groups = select_groups(config, request.groups) or list(config.groups.values())
    work = _Examination(
        config=config,
        groups=[group for group in groups if group.target],
        emit=runtime.emit,
        host=runtime.host,
        freeze=request.freeze,
    )
    work.tell(configuration.check_autostart(config))
    for group in groups:
        work.tell(configuration.check_target(group))
    work.tell(configuration.check_trust(config))
    work.tell(await host.check_clock())
    await _examine_targets(work)
    await _examine_domains(work, runtime.hypervisor)
    now = runtime.now()
    for group in work.groups:
        scan = work.scans.get(group.target) if group.target else None
        if scan is not None:
            work.tell(history.check_history(work.config, group, scan, work.domain_names, now))


async def _examine_targets(work: _Examination) -> None:
    for place in dict.fromkeys(group.target for group in work.groups if group.target):
        groups = work.groups_of(place)
        work.tell(await target.check_target(place))
        expected = any(group.append_only for group in groups)
        trial = partial(check_append_only, place, host_name(), expected=expected)
        work.tell(await to_thread.run_sync(trial))
        work.tell(await check_object_lock(work.host, place, keeps=not expected))
        work.tell(await to_thread.run_sync(check_recovery_key, place, groups[0].name))
        try:
            scan = work.scans[place] = await work.host.catalog(place).scan()
        except StorageError:
            continue  # ``check_target`` has reported it
        work.tell(await target.check_room(place, groups, scan))
        work.tell(history.check_damage(groups, scan))
        work.tell(await check_heads(work.host, work.host.catalog(place), groups, scan))
        work.tell(await to_thread.run_sync(history.check_unclaimed, work.config, groups[0], scan))
        work.tell(await leftovers.check_pending(groups, scan, work.host.images))
    await _examine_copies(work)
    work.notes, found = await leftovers.check_notes(work.host)
    work.tell(found)


async def _examine_copies(work: _Examination) -> None:
    checked = set(work.scans)
    for group in work.groups:
        for word in group.copies if group.target else ():
            named = work.config.groups.get(word)
            place = named.target if named is not None else StorageLocation.of(word)
            if place is None or group.target is None:
                continue  # the check of that group has reported it
            if place not in checked:
                work.tell(await target.check_target(place))
                name = named.name if named is not None else None
                work.tell(await to_thread.run_sync(check_recovery_key, place, name))
                checked.add(place)
            work.tell(await target.check_copies(group.target, place))


async def _examine_domains(work: _Examination, hypervisor: HypervisorPort) -> None:
    try:
        work.tell(host.check_versions(await hypervisor.versions()))
        work.domain_names = await hypervisor.domain_names()
        for group in work.groups:
            work.tell(configuration.check_group(group, work.domain_names))
        await _examine_planned(work, hypervisor, work.domain_names)
        names = work.domain_names
        work.at_work = await leftovers.images_at_work(hypervisor, names, work.host.images)
    except HypervisorError as error:
        advice = error.hint or "The domains could not be examined: start libvirt, and run again."
        work.tell(
            [
                Finding(
                    Level.PROBLEM,
                    "libvirt",
                    host.SUBJECT,
                    error.message,
                    advice,
                    code="libvirt_unreachable",
                )
            ]
        )
    work.tell(await _beside_images(work))


async def _examine_planned(
    work: _Examination, hypervisor: HypervisorPort, domain_names: Sequence[str]
) -> None:
    plan = plan_backups(work.config, [group.name for group in work.groups], domain_names)
    by_domain: dict[str, list[PlannedBackup]] = {}
    for planned in plan.backups if work.groups else ():
        by_domain.setdefault(planned.domain, []).append(planned)
    slots = anyio.CapacityLimiter(PARALLEL_DOMAINS)

    async def examine(backups: Sequence[PlannedBackup]) -> None:
        async with slots:
            work.tell(await _examine_domain(work, hypervisor, backups))

    async with anyio.create_task_group() as domains:
        for name, backups in by_domain.items():
            domains.start_soon(examine, backups, name=f"examine {name}")


async def _examine_domain(
    work: _Examination, hypervisor: HypervisorPort, backups: Sequence[PlannedBackup]
) -> list[Finding]:
    name = backups[0].domain
    try:
        domain = await hypervisor.domain(name)
        if await work.host.images.is_domain_locked(domain.uuid):
            return [
                Finding(
                    Level.INFO,
                    "domain",
                    name,
                    "is being worked on now, not examined",
                    code="domain_at_work",
                )
            ]
        return await _look_at(work, hypervisor, domain, backups)
    except VirtBackupError as error:
        message = error.within(name)
        return [Finding(Level.PROBLEM, "domain", name, message, error.hint, code="domain_failed")]


async def _look_at(
    work: _Examination,
    hypervisor: HypervisorPort,
    domain: DomainPort,
    backups: Sequence[PlannedBackup],
) -> list[Finding]:
    info = await domain.info()
    work.images[domain.name] = tuple(domain_xml.disk_sources(info.xml).values())
    findings = _check_state(info)
    for planned in backups:
        findings += await disks.check_disks(hypervisor, info, planned, work.host)
    findings += await leftovers.check_domain(domain)
    findings += await agent.check_agent(
        domain,
        info,
        quiesce=any(planned.quiesce for planned in backups),
        freeze_locks=work.host.images if work.freeze else None,
    )
    return findings


def _check_state(info: DomainInfo) -> list[Finding]:
    """Warn of a state in which backups can do less: saved, suspended."""
    if info.is_saved:
        advice = "Start it before its backup; restore --in-place refuses it as it is."
        return [Finding(Level.WARNING, "domain", info.name, SAVED, advice, code="domain_saved")]
    if info.is_suspended:
        message = "the guest is suspended: only `method: pull` can back it up, not quiesced"
        advice = f"Wake it up: virsh dompmwakeup {info.name}"
        return [
            Finding(Level.WARNING, "domain", info.name, message, advice, code="domain_suspended")
        ]
    return []


async def _beside_images(work: _Examination) -> list[Finding]:
    """Check the facts that depend on all images together."""
    everything = [image for images in work.images.values() for image in images]
    findings = await leftovers.check_image_leftovers(
        work.host.images, everything, work.scans.values(), work.notes, work.at_work
    )
    for place in work.scans:
        domains = await _on_the_same_disk(work, place.directory) if place.is_local else []
        if domains:
            message = f"is on the file system of the images of {', '.join(domains)}"
            advice = "Put it on another disk: one that breaks takes images and backups along."
            findings.append(
                Finding(
                    Level.WARNING,
                    "target",
                    str(place),
                    message,
                    advice,
                    code="target_beside_images",
                )
            )
    return findings


async def _on_the_same_disk(work: _Examination, target: Path) -> list[str]:
    shares = work.host.images.shares_file_system
    return [
        domain
        for domain in sorted(work.images)
        if any([await shares(image, target) for image in work.images[domain]])
    ]
