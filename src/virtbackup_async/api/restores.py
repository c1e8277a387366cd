"""Methods that bring data back: find a backup, restore it, export a disk, serve it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from virtbackup_async.api.methods import Methods, group_and_name
from virtbackup_async.events import BackupServed, DiskExported, RestoreDone

if TYPE_CHECKING:
    from virtbackup_async.catalog.scanning import FoundBackup
    from virtbackup_async.engine.restore.define import RestoredDomain

AnyPath = str | PathLike[str]


class Restores(Methods):
    """Finds a backup, and restores, exports or serves it."""

    async def find(
        self,
        group: str,
        domain: str | None = None,
        date: str | None = None,
        *,
        disks: Sequence[str] = (),
        trusted: bool = False,
    ) -> "FoundBackup":
        """Find a backup to restore or to export: the last one of a date, or else the one before.

        ``find("web")``, ``find("web@yesterday")`` and ``find("production/web@2026-03-01")`` name a
        backup as the command line does; ``find("production", "web", "2026-03-01")`` does it in
        three words.

        Args:
            group: the group whose target is searched; without a domain, the backup's name.
            domain: the domain's exact name, or a name with a date in it.
            date: a month, day, hour, minute or second (``2026-03-01T02:15``), ``yesterday``, an
                age (``3d``) or a backup's name; None for the newest backup.
            disks: the disks that will be needed; none for all. The method warns of missing ones.
            trusted: accept a definition with a wrong checksum.

        Raises:
            NotFoundError: there is no such backup, or it lacks one of ``disks``.
            ConfigError: the name can mean several backups, or the date cannot be understood.
            DefinitionError: it is damaged; no older one is taken in its place.
            StorageError: the target cannot be read.
        """
        from virtbackup_async.engine.inventory.chosen_backup import (
            FindRequest,
            find_backup_to_read,
        )

        request = FindRequest(*group_and_name(group, domain), date, disks, trusted)
        return await find_backup_to_read(await self._ready(), request)

    async def restore(
        self,
        found: "FoundBackup",
        target: AnyPath,
        *,
        disks: Sequence[str] = (),
        image_format: str | None = None,
    ) -> RestoreDone:
        """Restore disks of a backup into a directory, verified: all that are wanted, or nothing.

        Args:
            found: the backup, as :meth:`find` gives it.
            target: the directory; created if it is missing. No file in it is replaced.
            disks: none for all.
            image_format: ``raw`` or ``qcow2``; None for the format in the backup.

        Raises:
            NotFoundError: the backup has no such disk.
            StorageError: a file exists already, or the directory is full or not writable.
            CorruptError: the backup is damaged.
            RollbackError: after a failure, a file could not be removed.
        """
        from virtbackup_async.engine.inventory.another_backup import Use, naming_another
        from virtbackup_async.engine.restore.plan import Formats
        from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup

        request = RestoreRequest(
            found.definition,
            found.path.parent,
            Path(target),
            tuple(disks),
            formats=Formats(image_format),
        )
        runtime = await self._ready()
        async with naming_another(runtime, found, Use(words=(str(target),))):
            return await restore_backup(runtime, request)

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
        """Restore a backup into a directory, and define its domain on the images.

        Args:
            found: the backup, as :meth:`find` gives it.
            target: the directory of the images.
            disks: none for all.
            name: define it as another domain, with a UUID and MACs of its own.
            start: start the domain.
            allow_missing: start it although the backup lacks some of its disks.
            image_format: ``raw`` or ``qcow2``; None for the format in the domain.

        Raises:
            HypervisorError: libvirt has such a domain, or refuses to define it; then the restored
                images stay.
            NotFoundError: the domain would be started without some of its disks.
            StorageError, CorruptError, RollbackError: as for :meth:`restore`.
        """
        from virtbackup_async.engine.inventory.another_backup import Use, naming_another
        from virtbackup_async.engine.restore.define import DefineRequest, restore_domain
        from virtbackup_async.engine.restore.plan import Formats

        formats = Formats(image_format, as_they_were=True)
        disks, path = tuple(disks), found.path.parent
        request = DefineRequest(
            found.definition, path, Path(target), disks, name, start,
            allow_missing=allow_missing, formats=formats,
        )  # fmt: skip
        runtime = await self._ready()
        async with naming_another(runtime, found, Use(words=(str(target), "--define"))):
            return await restore_domain(runtime, request)

    async def restore_in_place(
        self,
        found: "FoundBackup",
        *,
        disks: Sequence[str] = (),
        discard_old: bool = False,
        remove_managed_save: bool = False,
        allow_missing: bool = False,
    ) -> RestoreDone:
        """Replace the disks of a shut-off domain by those of its backup.

        Args:
            found: the backup, as :meth:`find` gives it.
            disks: none for all.
            discard_old: remove the replaced images; otherwise they stay next to the new ones.
            remove_managed_save: discard the memory of a saved domain.
            allow_missing: restore although the backup lacks some of the domain's disks.

        Raises:
            HypervisorError: the domain runs, is saved, or is not the domain of the backup.
            DiskNotFoundError: the domain has no such disk, or one of another format.
            LockHeldError: another process works on the domain.
            StorageError, CorruptError, ImageError: nothing was replaced.
            RollbackError: after a failure, an image could not be put back.
        """
        from virtbackup_async.engine.inventory.another_backup import Use, naming_another
        from virtbackup_async.engine.restore.in_place import InPlaceRequest, restore_in_place

        request = InPlaceRequest(
            found.definition,
            found.path.parent,
            tuple(disks),
            discard_old=discard_old,
            remove_saved=remove_managed_save,
            allow_missing=allow_missing,
        )
        runtime = await self._ready()
        async with naming_another(runtime, found, Use(words=("--in-place",))):
            return await restore_in_place(runtime, request)

    async def export(
        self, found: "FoundBackup", disk: str, output: AnyPath, *, image_format: str | None = None
    ) -> DiskExported:
        """Write one disk of a backup as one image, without backing files.

        Args:
            found: the backup, as :meth:`find` gives it.
            disk: the disk (``vda``).
            output: the new file; ``-`` for standard output.
            image_format: ``qcow2`` or ``raw``; without it, as the output's suffix says, or else
                ``qcow2``.

        Raises:
            NotFoundError: the backup has no such disk.
            StorageError: the file exists already, or its directory is full or not writable.
            CorruptError: the backup is damaged.
            ImageError: QEMU cannot read the images.
        """
        from virtbackup_async.engine.inventory.another_backup import Use, naming_another
        from virtbackup_async.engine.restore.export import ExportRequest, export_disk

        request = ExportRequest(
            found.definition, found.path.parent, disk, Path(output), image_format
        )
        runtime = await self._ready()
        async with naming_another(runtime, found, Use("export", (disk, str(output)))):
            return await export_disk(runtime, request)

    @asynccontextmanager
    async def serve(  # noqa: PLR0913 -- one for each option
        self,
        found: "FoundBackup",
        *,
        disks: Sequence[str] = (),
        socket: AnyPath | None = None,
        tcp: tuple[str, int] | None = None,
        tls: AnyPath | None = None,
        overlay: AnyPath | None = None,
    ) -> AsyncGenerator[BackupServed]:
        """Serve the disks of a backup over NBD until the block ends, read-only unless ``overlay``.

        ``clean`` does not remove the backup in the meantime. A client that meets damage gets an
        I/O error for that range, and ``on_event`` a ``RangeUnreadable``.

        Args:
            found: the backup, as :meth:`find` gives it.
            disks: none for all.
            socket: the Unix socket to make; without it, one in a private directory.
            tcp: host and port to listen on in place of a socket; needs ``tls``.
            tls: a directory with ``ca-cert.pem``, ``server-cert.pem`` and ``server-key.pem``;
                clients need a certificate of that authority.
            overlay: a file that takes what clients write to the only disk, durable once they have
                flushed; it is made if it is missing, and can be used again.

        Raises:
            NotFoundError: the backup has no such disk.
            CorruptError: the backup is damaged.
            LockHeldError: it is being removed, or another process has that socket.
            ConfigError: other users could exchange the socket, TCP comes without ``tls``, or the
                overlay is that of another disk.
            NbdConnectionError: nothing can listen there.
            ImageError: a disk can only be read by QEMU.
            StorageError: there is no space to unpack a disk that can only be read in order.
        """
        from virtbackup_async.engine.inventory.another_backup import Use, naming_another
        from virtbackup_async.engine.serve.address import Place
        from virtbackup_async.engine.serve.serving import ServeRequest, serve_backup
        from virtbackup_async.nbd import TcpAddress

        place = Place(
            None if socket is None else Path(socket),
            None if tcp is None else TcpAddress(*tcp),
            None if tls is None else Path(tls),
        )
        above = None if overlay is None else Path(overlay)
        request = ServeRequest(found.definition, found.path.parent, tuple(disks), place, above)
        runtime = await self._ready()
        async with (
            naming_another(runtime, found, Use("serve", ())),
            serve_backup(runtime, request) as served,
        ):
            yield served
