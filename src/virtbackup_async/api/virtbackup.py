"""The object that has every command as a method, and how to open it.

::

    async with open_virtbackup("/etc/virt-backup/config.yml", on_event=print) as vb:
        run = await vb.backup(["production"])
        found = await vb.find("web@yesterday")
        await vb.restore(found, "/srv/web")

The command line is the first user of this package: what a command does is here or below; what it
prints, and how it exits, is in ``cli``. docs/how-to/library.md is the guide.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from virtbackup_async.api.copies import Copies
from virtbackup_async.api.inventory import Inventory
from virtbackup_async.api.keys import Passphrase, RecoveryKey, holding
from virtbackup_async.api.restores import AnyPath, Restores
from virtbackup_async.api.upkeep import Upkeep
from virtbackup_async.config.loading import load_config
from virtbackup_async.config.schema import Config
from virtbackup_async.config.target_config import config_of_target, with_held_key
from virtbackup_async.engine.requests import RequestMeter
from virtbackup_async.engine.runtime import open_runtime
from virtbackup_async.errors import ConfigError
from virtbackup_async.events import Emit, Warned
from virtbackup_async.files import lacks

if TYPE_CHECKING:
    from virtbackup_async.engine.backup.preview import BackupPreview
    from virtbackup_async.engine.backup.session import BackupRun


@asynccontextmanager
async def open_virtbackup(
    config: Config | AnyPath | None = None,
    *,
    target: AnyPath | None = None,
    key_file: AnyPath | None = None,
    key: Passphrase | RecoveryKey | None = None,
    on_event: Emit = lambda _event: None,
) -> AsyncGenerator["VirtBackup"]:
    """Read the configuration, and yield an object with a method for each command.

    Nothing is printed, no signal is handled, and the process never exits. Cancelling the task that
    awaits a method undoes what the method began, as Ctrl-C does on the command line. The class
    ``VirtBackup`` lists what the methods change for the whole process.

    Of the configuration, ``io_priority``, ``metrics_textfile``, ``notify`` and ``log`` have no
    effect: they belong to the command line.

    Args:
        config: the configuration, or the path of its file; None to search the usual places.
        target: read a target without a configuration, as ``--target`` does: its backups can be
            listed, verified and restored, and its path or URL is the name of the only group.
        key_file: opens that target, if it is encrypted.
        key: opens it in place of a key file, or all encrypted targets of the configuration. The
            process holds it until the block ends.
        on_event: called with each event in order, mostly in the event loop's thread, sometimes in a
            worker thread. It must neither block nor raise: a guest may be frozen meanwhile.

    Raises:
        ConfigError: there is no configuration, it cannot be read, or something in it is wrong.
    """
    if target is not None:
        if config is not None:
            raise ConfigError("give either a configuration or a target")
        named = target if isinstance(target, str) else Path(target)
        opened_by = None if key_file is None else Path(key_file)
        config = await to_thread.run_sync(config_of_target, named, opened_by)
    elif key_file is not None:
        raise ConfigError("a key file goes with a target: a configuration names its own")
    if key is not None and key_file is not None:
        raise ConfigError("give either a key file or another key")
    if not isinstance(config, Config):
        path = None if config is None else Path(config)
        config = await to_thread.run_sync(load_config, path)
    if key is None:
        async with _opened(config, on_event) as opened:
            yield opened
        return
    with holding(await to_thread.run_sync(key.key)) as name:
        async with _opened(with_held_key(config, name), on_event) as opened:
            yield opened


@asynccontextmanager
async def _opened(config: Config, on_event: Emit) -> AsyncGenerator["VirtBackup"]:
    for warning in config.warnings:
        on_event(Warned(warning))
    async with open_runtime(config, on_event) as runtime:
        requests = RequestMeter()
        opened = VirtBackup(runtime)
        try:
            yield opened
        finally:
            opened.close()
            for lack in lacks.take_untold():
                on_event(Warned(lack))
            for event in requests.events():
                on_event(event)


class VirtBackup(Restores, Inventory, Copies, Upkeep):
    """Every command as a method; made by :func:`open_virtbackup`.

    The methods may run side by side, in tasks of one event loop. They share one connection to
    libvirt, which the first that needs it opens, one pool of buffers, the processors and the rate
    limits. Locks on domains exclude each other within a process as they do between processes.

    Groups are named as in the configuration; where a method takes several, none means all that the
    command of the same name would take. Each method raises a ``NotFoundError`` for a group that is
    not in the configuration, and a ``ConfigError`` for one that lacks what the method needs.

    The methods change this for the whole process, the first time that one needs it:

    - libvirt takes one event loop for the life of a process. So all methods that need libvirt must
      run in the same asyncio loop (not trio's), and no other part of the process may register an
      event implementation with libvirt-python. Another loop gets a ``HypervisorError``.
    - Python's automatic garbage collection is turned off once libvirt is connected; the event loop
      collects every second instead (``hypervisor/event_loop.py`` says why).
    - libvirt's default error handler, which prints every error on stderr, is replaced by one that
      prints nothing: errors are raised as well.
    - ``OPENBLAS_NUM_THREADS`` is set to 1 in the environment, unless it is set, when a method
      opens a repository: numpy would start a thread for each processor.
    - A warning about a missing feature of a file system comes once in the life of a process.
    """

    async def backup(  # noqa: PLR0913 -- one for each option
        self,
        groups: Sequence[str] = (),
        *,
        wait_s: float = 0,
        allow_empty: bool = False,
        note: str | None = None,
        pin: bool = False,
        estimate: bool = True,
    ) -> "BackupRun":
        """Back up the domains of groups. A domain that fails is in the result, and stops no other.

        Each new backup is copied into the targets that its group names as ``copies``.

        Args:
            groups: groups, and single domains (``web``, or ``production/web`` where several groups
                have it), which are backed up as their group says; none for all groups with
                ``autostart``.
            wait_s: how long to wait for a domain that another process works on.
            allow_empty: return an empty run if there is nothing to back up.
            note: one line of text to remember, which goes into the definitions.
            pin: keep the new backups from being cleaned.
            estimate: emit how much each backup is expected to read; a progress display needs it.

        Raises:
            BackupsFailedError: there is nothing to back up.
            NotFoundError: one of ``groups`` is neither a group nor a domain of one.
            ConfigError: a domain is in groups with several targets, or the note is no line of text.
            HypervisorError: libvirt does not answer.
        """
        from virtbackup_async.engine.backup.session import BackupRequest, run_backup

        runtime = await self._ready()
        after_each = None
        if any(group.copies for group in runtime.config.groups.values()):
            from virtbackup_async.engine.copy.after_backup import copy_new_backups

            after_each = partial(copy_new_backups, wait_s=wait_s)
        request = BackupRequest(groups, wait_s, allow_empty, note, pin, estimate, after_each)
        return await run_backup(runtime, request)

    async def preview(
        self, groups: Sequence[str] = (), *, allow_empty: bool = False
    ) -> "BackupPreview":
        """Say what :meth:`backup` would read, how much, and whether it fits; touches nothing.

        A domain that could not be backed up is in the result.

        Args:
            groups: as for :meth:`backup`.
            allow_empty: return an empty preview where there is nothing to back up.

        Raises:
            BackupsFailedError: there is nothing to back up.
            NotFoundError: one of ``groups`` is neither a group nor a domain of one.
            ConfigError: a domain is in groups with several targets.
            HypervisorError: libvirt does not answer.
        """
        from virtbackup_async.engine.backup.preview import run_preview
        from virtbackup_async.engine.backup.session import BackupRequest

        return await run_preview(
            await self._ready(), BackupRequest(groups, allow_empty=allow_empty)
        )
