"""Methods about the backups that exist: list them, measure them, pin one."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from anyio import to_thread

from virtbackup_async.api.methods import Methods, group_and_name
from virtbackup_async.api.restores import AnyPath
from virtbackup_async.errors import ConfigError, StorageError, VirtBackupError
from virtbackup_async.events import (
    DiskCompared,
    HealthChecked,
    ListedRun,
    PinChanged,
    ReportWritten,
    ShownBackup,
    StatusShown,
)

if TYPE_CHECKING:
    from virtbackup_async.engine.inventory.listing import Listing
    from virtbackup_async.engine.inventory.stats import Stats
    from virtbackup_async.reporting.overview.parts import Overview


class Inventory(Methods):
    """Lists and measures backups, and pins them."""

    async def list(
        self,
        groups: Sequence[str] = (),
        *,
        domains: Sequence[str] = (),
        with_known: bool = False,
        since: str | None = None,
        latest: bool = False,
    ) -> "Listing":
        """List the backups of groups.

        Args:
            groups: groups, and single domains; none for all groups that have a target.
            domains: names or patterns; none for all that the groups' hosts mean.
            with_known: list also domains that libvirt knows and that have no backup.
            since: list only backups of that date or age (``7d``) and later.
            latest: list only the newest backup of each domain that is not known to be damaged.

        Raises:
            StorageError: a target cannot be read; what the others hold was emitted.
            CorruptError: of some domain there are broken backups alone.
        """
        from virtbackup_async.engine.inventory.listing import ListRequest, run_list

        return await run_list(
            await self._ready(), ListRequest(groups, domains, with_known, since, latest)
        )

    async def show(
        self, group: str, domain: str | None = None, date: str | None = None
    ) -> ShownBackup:
        """Say all that is known of one backup, and the command lines that restore it.

        Args:
            group: as for :meth:`find`: the group, or without a domain the backup's name.
            domain: as for :meth:`find`.
            date: as for :meth:`find`, but no backup before the date is taken.

        Raises:
            NotFoundError: there is no such backup.
            ConfigError: the name can mean several backups, or the date cannot be understood.
            CorruptError: the backup is broken; what is known of it was emitted.
            StorageError: the target cannot be read.
        """
        from virtbackup_async.engine.inventory.show import ShowRequest, run_show

        group_name, name = group_and_name(group, domain)
        return await run_show(await self._ready(), ShowRequest(name, group_name, date))

    async def diff(
        self, older: str, newer: str, *, group: str | None = None
    ) -> tuple[DiskCompared, ...]:
        """Compare two backups of a domain: how much of each disk changed.

        In a repository this reads two maps; otherwise both images, unless their digests are equal.

        Args:
            older: a backup's name, as for :meth:`find` without a group.
            newer: the other one's.
            group: the group whose target is searched; None for all.

        Raises:
            NotFoundError: there is no such backup.
            ConfigError: a name can mean several, or they are backups of different domains.
            CorruptError: a backup is damaged.
            StorageError: it cannot be read.
        """
        from virtbackup_async.engine.compare.diff import DiffRequest, run_diff

        return await run_diff(await self._ready(), DiffRequest(older, newer, group))

    async def stats(self, groups: Sequence[str] = (), *, each_backup: bool = False) -> "Stats":
        """Measure how much data the backups of groups hold, and how much space they take.

        Args:
            groups: none for all that have a target.
            each_backup: measure also what the removal of each backup would free.

        Raises:
            StorageError: a target cannot be read; the others were measured.
            CorruptError: a repository is damaged.
        """
        from virtbackup_async.engine.inventory.stats import StatsRequest, run_stats

        return await run_stats(await self._ready(), StatsRequest(groups, each_backup))

    async def overview(self) -> "Overview":
        """Tell whether every guest can be restored, to when, and what to do.

        All targets are read and libvirt is asked for its domains; one that does not answer is a
        part of the result, and raises nothing. A target without a configuration is read alone.

        Raises:
            ConfigError: the environment names no absolute path for the state directory.
        """
        return await self._overview(for_page=True)

    async def _overview(self, *, for_page: bool) -> "Overview":
        from virtbackup_async.engine.survey.survey import survey
        from virtbackup_async.reporting.overview.build import build_overview

        facts = await survey(await self._ready(), for_page=for_page)
        return await to_thread.run_sync(build_overview, facts)

    async def report(self, html: AnyPath, *, mode: int | None = None) -> ReportWritten:
        """Write a page that shows whether every guest can be restored, as one HTML file.

        Args:
            html: the file, which is replaced as a whole.
            mode: its permission bits; None for those that it has, 0600 for a new one.

        Raises:
            StorageError: the file cannot be written; or it was, and a target cannot be read.
            ConfigError: the environment names no absolute path for the state directory.
        """
        from virtbackup_async.reporting.page.file import write_page
        from virtbackup_async.reporting.page.page import render_page
        from virtbackup_async.reporting.page.words import written

        began_s = monotonic()
        overview = await self.overview()
        took_s = monotonic() - began_s
        page = await to_thread.run_sync(partial(render_page, overview, took_s=took_s))
        event = written(overview, str(html), await write_page(Path(html), page, mode))
        self._open.emit(event)
        for target in overview.capacity:
            if target.error is not None:
                raise StorageError(target.error)
        return event

    async def check(
        self, words: Sequence[str] = (), *, max_age: str | None = None
    ) -> HealthChecked:
        """Say whether each guest has a good backup that is young enough, for a monitoring.

        Whatever cannot be found out is the status ``unknown``, and raises nothing.

        Args:
            words: groups or domains; none for all.
            max_age: how old the newest good backup may be: ``26h``, ``2d``; None for each group's
                own ``max_age``; a target without a configuration has none.

        Raises:
            ConfigError: ``max_age`` is no length of time.
        """
        from virtbackup_async.model.amounts import age_of
        from virtbackup_async.reporting import health

        limit = None if max_age is None else age_of(max_age)
        if max_age is not None and not limit:
            raise ConfigError(f"max-age {max_age!r} is no length of time", hint="Write 26h or 2d.")
        if limit is None and self.config.of_target:
            checked = health.unknown("without a configuration, max-age is needed, such as 26h")
        else:
            checked = await self._checked(tuple(words), limit.total_seconds() if limit else None)
        self._open.emit(checked)
        return checked

    async def _checked(self, words: tuple[str, ...], limit_s: float | None) -> HealthChecked:
        from virtbackup_async.reporting import health

        try:
            overview = await self._overview(for_page=False)
        except VirtBackupError as error:
            return health.unknown(str(error))
        return health.health_of(overview, words, limit_s)

    async def status(self) -> StatusShown:
        """Say how things are: can every guest be restored, what runs, and what comes next?

        The last run of each command is emitted as well.

        Raises:
            StorageError: a target cannot be read; all that is known was emitted.
            ConfigError: the environment names no absolute path for the state directory.
        """
        from virtbackup_async.engine.survey.timers import read_timers
        from virtbackup_async.reporting.past_runs import last_of_each, listed_run
        from virtbackup_async.reporting.status import status_of

        overview = await self._overview(for_page=False)
        for run in last_of_each(overview.runs):
            self._open.emit(listed_run(run))
        # Of a target alone, this host's timers say nothing.
        shown = status_of(overview, () if overview.of_target else await read_timers())
        self._open.emit(shown)
        for target in shown.targets:
            if target.error is not None:
                raise StorageError(target.error)
        return shown

    async def log(self, *, limit: int = 10) -> tuple[ListedRun, ...]:
        """List the last runs that the histories in the targets know, the newest first.

        Args:
            limit: how many.

        Raises:
            ConfigError: no group has a target.
            StorageError: a history cannot be read; the runs of the others were emitted.
        """
        from virtbackup_async.engine.inventory.past_runs import read_past_runs
        from virtbackup_async.reporting.overview.runs import each_once
        from virtbackup_async.reporting.past_runs import listed_run

        runtime = await self._ready()
        records, failures = await read_past_runs(runtime)
        runs = each_once(records, runtime.now().timestamp())
        listed = tuple(map(listed_run, runs[::-1][: max(0, limit)]))
        for run in listed:
            runtime.emit(run)
        for failure in failures[:1]:
            raise failure
        return listed

    async def pin(
        self, group: str, domain: str | None = None, date: str | None = None
    ) -> PinChanged:
        """Keep a backup from being cleaned, whatever its age.

        Args:
            group: as for :meth:`find`: the group, or without a domain the backup's name.
            domain: as for :meth:`find`.
            date: as for :meth:`find`, but no backup before the date is taken.

        Raises:
            NotFoundError: there is no such backup.
            DefinitionError: it is damaged.
            StorageError: its definition cannot be written.
        """
        return await self._set_pinned(group, domain, date, pinned=True)

    async def unpin(
        self, group: str, domain: str | None = None, date: str | None = None
    ) -> PinChanged:
        """Let a pinned backup be cleaned again; arguments and errors as for :meth:`pin`."""
        return await self._set_pinned(group, domain, date, pinned=False)

    async def _set_pinned(
        self, group: str, domain: str | None, date: str | None, *, pinned: bool
    ) -> PinChanged:
        from virtbackup_async.engine.inventory.chosen_backup import PinRequest, set_pinned

        request = PinRequest(*group_and_name(group, domain), date, pinned)
        return await set_pinned(await self._ready(), request)
