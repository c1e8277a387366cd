"""Functions for a host without a configuration: look around, and write one."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from virtbackup_async.config.loading import new_config_path
from virtbackup_async.config.new_file import NewConfig, write_config
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.runtime import open_runtime
from virtbackup_async.errors import HypervisorError
from virtbackup_async.events import ConfigWritten

if TYPE_CHECKING:
    from virtbackup_async.engine.setup.site import Site

SYSTEM_URI = "qemu:///system"
SESSION_URI = "qemu:///session"
_VARIABLE = "LIBVIRT_DEFAULT_URI"
_HINT = (
    "Start libvirt, or name another one with --uri. `virtbackup config example > FILE` writes a "
    "configuration to be changed by hand."
)


def usual_uris() -> tuple[str, ...]:
    """Return the libvirts to ask where none is named: libvirt's own variable counts first."""
    named = os.environ.get(_VARIABLE)
    if named:
        return (named,)
    return (SYSTEM_URI,) if os.geteuid() == 0 else (SESSION_URI, SYSTEM_URI)


async def survey_host(uris: Sequence[str] = ()) -> "Site":
    """Look at this host; change nothing.

    As with the methods of ``VirtBackup``, libvirt takes one event loop for the life of a process.

    Args:
        uris: libvirts, of which the first one that has domains is taken, or else the first one
            that answers; none for the usual ones.

    Raises:
        HypervisorError: none of them answers.
    """
    from virtbackup_async.engine.setup.survey import survey

    empty, failure = None, None
    for uri in uris or usual_uris():
        try:
            async with open_runtime(Config(Path(), uri=uri), lambda _event: None) as runtime:
                site = await survey(runtime.hypervisor, uri)
        except HypervisorError as error:
            failure = failure or error
            continue
        if site.domains:
            return site
        empty = empty or site
    if empty is None:
        reason = failure.message if failure else "no libvirt is named"
        raise HypervisorError(reason, hint=_HINT) from failure
    return empty


async def write_configuration(
    new: NewConfig, path: Path, *, replace: bool = False, dry_run: bool = False
) -> ConfigWritten:
    """Write a configuration, and make its target; all of it, or nothing.

    Args:
        new: what it says.
        path: the file.
        replace: put it in the place of a file that is there, which stays as ``FILE.bak``.
        dry_run: write nothing, only return what would be written.

    Raises:
        ConfigError: the configuration would not be read as it is meant.
        StorageError: something cannot be written, or is there already.
    """
    from virtbackup_async.engine.setup.writing import write_new_config

    text = write_config(new, path)
    old = None
    if not dry_run:
        old = await write_new_config(path, text.encode(), new.target, replace=replace)
    return ConfigWritten(
        path=str(path),
        target=str(new.target),
        config=text,
        dry_run=dry_run,
        found=path == new_config_path(),
        old=str(old) if old else None,
    )
