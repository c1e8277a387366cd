"""Methods that keep targets in order: clean, forget, verify, repair, accept, doctor."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from virtbackup_async.api.methods import Methods
from virtbackup_async.events import Finding, TargetAccepted

if TYPE_CHECKING:
    from virtbackup_async.engine.clean.clean import CleanRun
    from virtbackup_async.engine.clean.forget import ForgetRun
    from virtbackup_async.engine.verify.repair import RepairRun
    from virtbackup_async.engine.verify.verify import VerifyRun


class Upkeep(Methods):
    """Cleans, verifies and repairs targets, and looks for problems."""

    async def clean(  # noqa: PLR0913 -- one for each option of the command
        self,
        groups: Sequence[str] = (),
        *,
        broken: bool = True,
        complete: bool = True,
        dry_run: bool = False,
        drop_damaged: bool = False,
        wait_s: float = 0,
        accepted: Sequence[str] = (),
    ) -> "CleanRun":
        """Remove the backups that no retention rule keeps, and undo killed ones.

        Args:
            groups: none for all that have a target.
            broken: undo killed backups.
            complete: remove complete backups that no rule keeps.
            dry_run: only report what would be done.
            drop_damaged: also remove backups that ``verify`` found damaged, if a newer one is good.
            wait_s: how long to wait for a domain that another process works on.
            accepted: names of backups, each with a date, whose sudden change of data is no reason
                to keep the backups before them any longer. That is recorded.

        Raises:
            NotFoundError: there is no such group, or no such backup to accept.
            StorageError: a target cannot be read; the others were cleaned.
            CorruptError: a repository is damaged, so nothing of it was removed.
        """
        from virtbackup_async.engine.clean.clean import run_clean
        from virtbackup_async.engine.clean.request import CleanRequest

        request = CleanRequest(
            groups, broken, complete, dry_run, wait_s, drop_damaged, tuple(accepted)
        )
        return await run_clean(await self._ready(), request)

    async def forget(  # noqa: PLR0913 -- one for each option of the command
        self,
        backups: Sequence[str],
        *,
        group: str | None = None,
        unpin: bool = False,
        allow_newest: bool = False,
        dry_run: bool = False,
        wait_s: float = 0,
    ) -> "ForgetRun":
        """Remove single backups, broken ones too: all of them, or none if one may not go.

        Args:
            backups: their names, each with a date: ``web@2026-03-01``, ``web@latest``.
            group: the group whose target is searched; None for all.
            unpin: remove pinned ones too.
            allow_newest: remove also the newest good backup of a domain.
            dry_run: only say what would be removed, and what that frees.
            wait_s: how long to wait for a process that reads a backup.

        Raises:
            NotFoundError: there is no such backup.
            ConfigError: a backup may not go, or a name has no date or can mean several.
            DefinitionError: nobody knows which files belong to a backup.
            StorageError: a target cannot be read, or its repository not pruned.
            CorruptError: a repository is damaged, so nothing of it was pruned.
        """
        from virtbackup_async.engine.clean.forget import ForgetRequest, run_forget

        request = ForgetRequest(tuple(backups), group, unpin, allow_newest, dry_run, wait_s)
        return await run_forget(await self._ready(), request)

    async def verify(  # noqa: PLR0913 -- one for each option of the command
        self,
        groups: Sequence[str] = (),
        *,
        domains: Sequence[str] = (),
        newer_than: str | None = None,
        not_verified_since: str | None = None,
        sample: str | None = None,
        quick: bool = False,
        read_data: str | None = None,
    ) -> "VerifyRun":
        """Read backups and compare them with the digests that were recorded.

        Args:
            groups: none for all that have a target.
            domains: names or patterns; none for all that the groups' hosts mean.
            newer_than: only backups of the last ``12h``, ``7d`` or ``4w``, or since a date.
            not_verified_since: pass over backups that were found good in the last ``12h``, or
                since a date.
            sample: only ``5`` or ``10%`` of them, a new choice every day.
            quick: read no data: only check that all of it exists.
            read_data: how much to read, chosen at random: ``2%``, ``10GiB`` or ``all``; None for
                what the groups say, or all in a directory and 2% elsewhere.

        Raises:
            NotFoundError: there is no backup.
            StorageError: a target cannot be read; the others were verified.
        """
        from virtbackup_async.engine.verify.filters import VerifyRequest
        from virtbackup_async.engine.verify.verify import run_verify

        request = VerifyRequest(
            tuple(groups), tuple(domains), newer_than, not_verified_since, sample, quick, read_data
        )
        return await run_verify(await self._ready(), request)

    async def verify_without_key(self, groups: Sequence[str] = ()) -> None:
        """Read all packs of encrypted targets, and compare them with their checksums.

        Needs no key, and finds damage alone: anybody can compute a checksum anew. Emits a finding
        for each damaged file and for each target.

        Args:
            groups: none for all that have a target.

        Raises:
            NotFoundError: a target has no encrypted repository.
            CorruptError: something is damaged.
            StorageError: a target cannot be read.
        """
        from virtbackup_async.engine.verify.without_key import verify_without_key

        await verify_without_key(await self._ready(), groups)

    async def repair(self, groups: Sequence[str] = (), *, quick: bool = False) -> "RepairRun":
        """Repair the repositories of groups' targets.

        Args:
            groups: none for all that have a target.
            quick: trust all chunks that exist, without reading them.

        Raises:
            NotFoundError: there is no repository.
            LockHeldError: a prune or another repair is running.
            CorruptError: some damage cannot be repaired.
            StorageError: a target cannot be read or written; the others were repaired.
        """
        from virtbackup_async.engine.verify.repair import RepairRequest, run_repair

        return await run_repair(await self._ready(), RepairRequest(groups, quick))

    async def accept(
        self, words: Sequence[str], *, dry_run: bool = False
    ) -> tuple[TargetAccepted, ...]:
        """Take targets as they are now for what this host has seen in them.

        Args:
            words: groups, and single domains of groups.
            dry_run: only say what would be accepted.

        Raises:
            NotFoundError: a named group does not exist, or a named domain is unknown.
            StorageError: a target cannot be read, or the memory cannot be written.
        """
        from virtbackup_async.engine.inventory.accept import AcceptRequest, run_accept

        return await run_accept(await self._ready(), AcceptRequest(tuple(words), dry_run))

    async def doctor(
        self, groups: Sequence[str] = (), *, freeze: bool = False
    ) -> tuple[Finding, ...]:
        """Look for problems that would make the next backups fail; change nothing.

        Args:
            groups: none for all.
            freeze: freeze each guest that is to be quiesced for a moment, to measure the time.
        """
        from virtbackup_async.engine.doctor.examination import DoctorRequest, run_doctor

        return await run_doctor(await self._ready(), DoctorRequest(groups, freeze))
