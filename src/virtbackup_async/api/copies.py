"""The method that copies backups into other targets."""

from collections.abc import Sequence
from os import fspath
from typing import TYPE_CHECKING

from virtbackup_async.api.methods import Methods
from virtbackup_async.api.restores import AnyPath

if TYPE_CHECKING:
    from virtbackup_async.engine.copy.session import CopyRun


class Copies(Methods):
    """Copies backups."""

    async def copy(  # noqa: PLR0913 -- one for each option of the command
        self,
        target: AnyPath,
        backups: Sequence[str] = (),
        *,
        groups: Sequence[str] = (),
        packager: str | None = None,
        latest: bool = False,
        since: str | None = None,
        new: bool = False,
        wait_s: float = 0,
        dry_run: bool = False,
    ) -> "CopyRun":
        """Copy backups into another target, which lacks them; nothing there is ever removed.

        A backup that fails is in the result, and stops no other: a damaged one is never copied.

        Args:
            target: a group of the configuration, whose target is meant, or a path.
            backups: groups, domains (all their backups) and single backups (``web@2026-03-01``);
                none for all.
            groups: only backups of these groups.
            packager: ``directory``, ``tar``, ``zstd`` or ``repository``; None for the one that the
                configuration has for this target, or else a repository.
            latest: only the newest backup of each domain.
            since: only backups made in the last ``12h``, ``7d`` or ``4w``, or since a date.
            new: only backups that are newer than all that the target has of their domain.
            wait_s: how long to wait for another process that copies backups of the same domain.
            dry_run: only say what would be copied.

        Raises:
            NotFoundError: there is no such backup, or none at all.
            ConfigError: the backups are in that target already, or one target lies in the other.
            StorageError: a target is missing, or cannot be read.
        """
        from virtbackup_async.engine.copy.selection import CopyRequest
        from virtbackup_async.engine.copy.session import run_copy

        request = CopyRequest(
            fspath(target), tuple(backups), tuple(groups), packager, latest, since, new, wait_s,
            dry_run,
        )  # fmt: skip
        return await run_copy(await self._ready(), request)
