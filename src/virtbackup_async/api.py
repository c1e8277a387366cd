"""The public door: every command as a method, for programs that have an event loop of their own.

::

    async with open_virtbackup("/etc/virt-backup/config.yml", on_event=print) as vb:
        run = await vb.backup(["production"])
        found = await vb.find("production", "web")
        await vb.restore(found, "/srv/web")

The command line is the first user of this module: what a command does is here or below, what it
prints and how it exits is in ``cli``. A command's module is imported when its method is called, so
``list`` starts without libvirt and numpy. docs/how-to/library.md is the guide.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from virtbackup_async.config.loading import load_config
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.runtime import Runtime, open_runtime
from virtbackup_async.events import DiskExported, Emit, Finding, PinChanged, RestoreDone, Warned
from virtbackup_async.files import lacks

if TYPE_CHECKING:
    from virtbackup_async.catalog.scanning import FoundBackup
    from virtbackup_async.engine.backup.session import BackupRun
    from virtbackup_async.engine.clean.clean import CleanRun
    from virtbackup_async.engine.inventory.listing import Listing
    from virtbackup_async.engine.inventory.stats import Stats
    from virtbackup_async.engine.restore.define import RestoredDomain
    from virtbackup_async.engine.verify.repair import RepairRun
    from virtbackup_async.engine.verify.verify import VerifyRun

AnyPath = str | PathLike[str]


@asynccontextmanager
async def open_virtbackup(
    config: Config | AnyPath | None = None, *, on_event: Emit = lambda _event: None
) -> AsyncGenerator["VirtBackup"]:
    """Read the configuration, and give an object with a method for each command.

    Nothing is printed, no signal is handled, the process never exits. Cancelling the task that
    awaits a method undoes what the method began, as Ctrl-C does on the command line.

    What it changes for the whole process, the first time that a method needs it:

    - libvirt takes one event loop for the life of a process. So all methods that need libvirt must
      run in the same asyncio loop (not trio's), and no other part of the process may register an
      event implementation with libvirt-python. Another loop gets a ``HypervisorError``.
    - Python's automatic garbage collection is turned off once libvirt is connected; the event loop
      collects every second in its place (``hypervisor/event_loop.py`` says why).
    - libvirt's default error handler, which prints every error on stderr, is replaced by one that
      prints nothing: errors are raised as well.
    - ``OPENBLAS_NUM_THREADS`` is set to 1 in the environment, unless it is set, when a method
      opens a repository: numpy would start a thread for each processor.
    - Warnings about what a file system lacks are given once in the life of a process.

    Of the configuration, ``io_priority``, ``metrics_textfile``, ``notify`` and ``log`` are not
    acted upon: they belong to the command line.

    Args:
        config: the configuration, or the path of its file; None to look in the usual places.
        on_event: called with each event, in the order of what happens, mostly in the event loop's
            thread and at times in a worker thread. It must neither block nor raise: a guest may
            stand frozen meanwhile.

    Raises:
        ConfigError: there is no configuration, it cannot be read, or something in it is wrong.
    """
    if not isinstance(config, Config):
        path = None if config is None else Path(config)
        config = await to_thread.run_sync(load_config, path)
    for warning in config.warnings:
        on_event(Warned(warning))
    async with open_runtime(config, on_event) as runtime:
        opened = VirtBackup(runtime)
        try:
            yield opened
        finally:
            opened.close()
            for lack in lacks.take_untold():
                on_event(Warned(lack))


class VirtBackup:
    """Every command as a method; made by :func:`open_virtbackup`.

    The methods may run side by side, in tasks of one event loop. They share one connection to
    libvirt, which the first that needs it opens, one pool of buffers, the processors and the rate
    limits. Locks on domains keep them apart as they keep processes apart.

    Groups are named as in the configuration; where a method takes several, none means all that the
    command of the same name would take. Each method raises a ``NotFoundError`` for a group that is
    not in the configuration, and a ``ConfigError`` for one that lacks what the method needs.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime: Runtime | None = runtime

    @property
    def config(self) -> Config:
        """The configuration."""
        return self._open.config

    async def backup(
        self, groups: Sequence[str] = (), *, wait_s: float = 0, allow_empty: bool = False
    ) -> "BackupRun":
        """Back up the domains of groups. A domain that fails is in the result, and stops no other.

        Args:
            groups: none for all groups with ``autostart``.
            wait_s: how long to wait for a domain that somebody else works on.
            allow_empty: return an empty run where there is nothing to back up.

        Raises:
            BackupsFailedError: there is nothing to back up.
            HypervisorError: libvirt does not answer.
        """
        from virtbackup_async.engine.backup.session import BackupRequest, run_backup

        return await run_backup(await self._ready(), BackupRequest(groups, wait_s, allow_empty))

    async def find(
        self,
        group: str,
        domain: str,
        date: str | None = None,
        *,
        disks: Sequence[str] = (),
        trusted: bool = False,
    ) -> "FoundBackup":
        """Find a backup to restore or to export: the last one of a date, or else before it.

        Args:
            group: the group whose target is searched.
            domain: the domain's exact name.
            date: a month, day, hour, minute or second (``2026-03-01T02:15``), or a backup's name;
                None for the newest backup.
            disks: the disks that will be wanted; none for all. The method warns of missing ones.
            trusted: take a definition whose checksum is wrong.

        Raises:
            NotFoundError: there is no such backup, or it lacks one of ``disks``.
            DefinitionError: it is there, and damaged; no older one is taken in its place.
            StorageError: the target cannot be read.
        """
        from virtbackup_async.engine.inventory.chosen_backup import (
            FindRequest,
            find_backup_to_read,
        )

        request = FindRequest(group, domain, date, disks, trusted)
        return await find_backup_to_read(await self._ready(), request)

    async def restore(
        self,
        found: "FoundBackup",
        target: AnyPath,
        *,
        disks: Sequence[str] = (),
        image_format: str | None = None,
    ) -> RestoreDone:
        """Restore the disks of a backup into a directory, checked: all of them, or nothing.

        Args:
            found: the backup, as :meth:`find` gives it.
            target: the directory; made if it is missing. No file in it is replaced.
            disks: none for all.
            image_format: ``raw`` or ``qcow2``; None for what the disks are in the backup.

        Raises:
            NotFoundError: the backup has no such disk.
            StorageError: a file exists already, or the directory is full or not writable.
            CorruptError: the backup is damaged.
            RollbackError: after a failure something could not be removed.
        """
        from virtbackup_async.engine.restore.plan import Formats
        from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup

        request = RestoreRequest(
            found.definition,
            found.path.parent,
            Path(target),
            tuple(disks),
            formats=Formats(image_format),
        )
        return await restore_backup(await self._ready(), request)

    async def restore_domain(  # noqa: PLR0913 -- one for each option of the command
        self,
        found: "FoundBackup",
        target: AnyPath,
        *,
        disks: Sequence[str] = (),
        name: str | None = None,
        start: bool = False,
        allow_missing: bool = False,
        image_format: str | None = None,
    ) -> "RestoredDomain":
        """Restore a backup into a directory, and define its domain in libvirt on the images.

        Args:
            found: the backup, as :meth:`find` gives it.
            target: the directory of the images.
            disks: none for all.
            name: define it as another domain, with a UUID and MACs of its own.
            start: start the domain.
            allow_missing: start it although the backup lacks disks of it.
            image_format: ``raw`` or ``qcow2``; None for what the disks were in the domain.

        Raises:
            HypervisorError: libvirt has such a domain, or refuses to define it; then the restored
                images stay.
            NotFoundError: the domain would be started without some of its disks.
            StorageError, CorruptError, RollbackError: as for :meth:`restore`.
        """
        from virtbackup_async.engine.restore.define import DefineRequest, restore_domain
        from virtbackup_async.engine.restore.plan import Formats

        request = DefineRequest(
            found.definition,
            found.path.parent,
            Path(target),
            tuple(disks),
            name,
            start,
            allow_missing=allow_missing,
            formats=Formats(image_format, as_they_were=True),
        )
        return await restore_domain(await self._ready(), request)

    async def restore_in_place(
        self,
        found: "FoundBackup",
        *,
        disks: Sequence[str] = (),
        discard_old: bool = False,
        remove_managed_save: bool = False,
        allow_missing: bool = False,
    ) -> RestoreDone:
        """Replace the disks of a domain that is shut off by those of its backup.

        Args:
            found: the backup, as :meth:`find` gives it.
            disks: none for all.
            discard_old: remove the images that are replaced; else they are kept beside.
            remove_managed_save: throw away the memory of a domain that is saved.
            allow_missing: restore although the backup lacks disks of the domain.

        Raises:
            HypervisorError: the domain runs, is saved, or is another than the backup's.
            DiskNotFoundError: the domain has no such disk, or one of another format.
            LockHeldError: somebody else works on the domain.
            StorageError, CorruptError, ImageError: nothing was replaced.
            RollbackError: after a failure an image could not be put back.
        """
        from virtbackup_async.engine.restore.in_place import InPlaceRequest, restore_in_place

        request = InPlaceRequest(
            found.definition,
            found.path.parent,
            tuple(disks),
            discard_old=discard_old,
            remove_saved=remove_managed_save,
            allow_missing=allow_missing,
        )
        return await restore_in_place(await self._ready(), request)

    async def export(
        self, found: "FoundBackup", disk: str, output: AnyPath, *, image_format: str = "qcow2"
    ) -> DiskExported:
        """Write one disk of a backup as one image, without others below it.

        Args:
            found: the backup, as :meth:`find` gives it.
            disk: the disk (``vda``).
            output: the new file; ``-`` for standard output.
            image_format: ``qcow2`` or ``raw``.

        Raises:
            NotFoundError: the backup has no such disk.
            StorageError: the file exists already, or its directory is full or not writable.
            CorruptError: the backup is damaged.
            ImageError: QEMU cannot read the images.
        """
        from virtbackup_async.engine.restore.export import ExportRequest, export_disk

        request = ExportRequest(
            found.definition, found.path.parent, disk, Path(output), image_format
        )
        return await export_disk(await self._ready(), request)

    async def clean(  # noqa: PLR0913 -- one for each option of the command
        self,
        groups: Sequence[str] = (),
        *,
        broken: bool = True,
        complete: bool = True,
        dry_run: bool = False,
        drop_damaged: bool = False,
        wait_s: float = 0,
    ) -> "CleanRun":
        """Remove the backups that no retention rule keeps, and undo those that were killed.

        Args:
            groups: none for all that have a target.
            broken: undo backups that were killed.
            complete: remove complete backups that no rule keeps.
            dry_run: only say what would be done.
            drop_damaged: remove also what ``verify`` found damaged, if a newer backup is good.
            wait_s: how long to wait for a domain that somebody else works on.

        Raises:
            StorageError: a target cannot be read; the others were cleaned.
            CorruptError: a repository is damaged, so nothing of it was removed.
        """
        from virtbackup_async.engine.clean.clean import run_clean
        from virtbackup_async.engine.clean.request import CleanRequest

        request = CleanRequest(groups, broken, complete, dry_run, wait_s, drop_damaged)
        return await run_clean(await self._ready(), request)

    async def verify(  # noqa: PLR0913 -- one for each option of the command
        self,
        groups: Sequence[str] = (),
        *,
        domains: Sequence[str] = (),
        newer_than: str | None = None,
        not_verified_since: str | None = None,
        sample: str | None = None,
        quick: bool = False,
    ) -> "VerifyRun":
        """Read backups back and compare them with what was recorded.

        Args:
            groups: none for all that have a target.
            domains: names or patterns; none for all that the groups' hosts mean.
            newer_than: only backups of the last ``12h``, ``7d`` or ``4w``, or since a date.
            not_verified_since: pass over backups that were found good in the last ``12h``.
            sample: only ``5`` or ``10%`` of them, drawn anew every day.
            quick: read no data: only see that all of it is there.

        Raises:
            NotFoundError: there is no backup.
            StorageError: a target cannot be read; the others were verified.
        """
        from virtbackup_async.engine.verify.filters import VerifyRequest
        from virtbackup_async.engine.verify.verify import run_verify

        request = VerifyRequest(
            tuple(groups), tuple(domains), newer_than, not_verified_since, sample, quick
        )
        return await run_verify(await self._ready(), request)

    async def repair(self, groups: Sequence[str] = (), *, quick: bool = False) -> "RepairRun":
        """Mend the repositories of groups' targets.

        Args:
            groups: none for all that have a target.
            quick: take for good what is there, without reading it.

        Raises:
            NotFoundError: there is no repository.
            LockHeldError: a sweep or another repair is under way.
            CorruptError: something cannot be mended.
            StorageError: a target cannot be read or written; the others were repaired.
        """
        from virtbackup_async.engine.verify.repair import RepairRequest, run_repair

        return await run_repair(await self._ready(), RepairRequest(groups, quick))

    async def list(
        self,
        groups: Sequence[str] = (),
        *,
        domains: Sequence[str] = (),
        with_known: bool = False,
    ) -> "Listing":
        """List the backups of groups.

        Args:
            groups: none for all that have a target.
            domains: names or patterns; none for all that the groups' hosts mean.
            with_known: list also domains that libvirt knows and that have no backup.

        Raises:
            StorageError: a target cannot be read; what the others hold was emitted.
            CorruptError: of some domain there are broken backups alone.
        """
        from virtbackup_async.engine.inventory.listing import ListRequest, run_list

        return await run_list(await self._ready(), ListRequest(groups, domains, with_known))

    async def stats(self, groups: Sequence[str] = (), *, each_backup: bool = False) -> "Stats":
        """Measure how much the backups of groups hold, and how much they take.

        Args:
            groups: none for all that have a target.
            each_backup: measure also what the removal of each backup would free.

        Raises:
            StorageError: a target cannot be read; the others were measured.
            CorruptError: a repository is damaged.
        """
        from virtbackup_async.engine.inventory.stats import StatsRequest, run_stats

        return await run_stats(await self._ready(), StatsRequest(groups, each_backup))

    async def pin(self, group: str, domain: str, date: str | None = None) -> PinChanged:
        """Keep a backup from being cleaned, whatever its age.

        Args:
            group: the group whose target is searched.
            domain: the domain's exact name.
            date: as for :meth:`find`, but no backup before the date is taken.

        Raises:
            NotFoundError: there is no such backup.
            DefinitionError: it is damaged.
            StorageError: its definition cannot be written.
        """
        return await self._set_pinned(group, domain, date, pinned=True)

    async def unpin(self, group: str, domain: str, date: str | None = None) -> PinChanged:
        """Let a pinned backup be cleaned again; arguments and errors as for :meth:`pin`."""
        return await self._set_pinned(group, domain, date, pinned=False)

    async def doctor(
        self, groups: Sequence[str] = (), *, freeze: bool = False
    ) -> tuple[Finding, ...]:
        """Look for what would make the next backups fail; changes nothing.

        Args:
            groups: none for all.
            freeze: freeze each guest that is to be quiesced for a moment, to see how long it takes.
        """
        from virtbackup_async.engine.doctor.examination import DoctorRequest, run_doctor

        return await run_doctor(await self._ready(), DoctorRequest(groups, freeze))

    def close(self) -> None:
        """Refuse further calls; the end of :func:`open_virtbackup` calls it."""
        self._runtime = None

    async def _set_pinned(
        self, group: str, domain: str, date: str | None, *, pinned: bool
    ) -> PinChanged:
        from virtbackup_async.engine.inventory.chosen_backup import PinRequest, set_pinned

        return await set_pinned(await self._ready(), PinRequest(group, domain, date, pinned))

    @property
    def _open(self) -> Runtime:
        if self._runtime is None:
            raise RuntimeError("this VirtBackup is closed: use it inside `async with`")
        return self._runtime

    async def _ready(self) -> Runtime:
        runtime = self._open
        await runtime.refresh()
        return runtime
