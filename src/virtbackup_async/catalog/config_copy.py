"""The file in a target that holds a copy of this host's configuration.

::

    TARGET/.virtbackup-config.HOST.yml

One for each host, replaced as a whole; no command of this program reads it.
docs/reference/formats.md ("Configuration copy") is the reference.
"""

import re
from typing import Final

from anyio import to_thread

from virtbackup_async.catalog.existing import open_existing
from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile
from virtbackup_async.repository import is_append_only

COPY_MAX_BYTES: Final = 1 << 20
"""What ``-c`` reads of a configuration."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9.-]")
_NAME_MAX: Final = 64


def file_name(host: str) -> str:
    """Return the name of a host's copy."""
    return f".virtbackup-config.{_UNSAFE.sub('_', host)[:_NAME_MAX]}.yml"


async def save_config_copy(
    target: StorageLocation, host: str, data: bytes, *, create: bool
) -> None:
    """Put the copy into a target, unless the same is there already.

    Args:
        target: the target.
        host: this machine's name.
        data: the copy.
        create: begin one where there is none.

    Raises:
        StorageError: it is too long, or the target cannot be written.
    """
    file = TargetFile(target, file_name(host))
    await to_thread.run_sync(_save, file, data, create)


def _save(file: TargetFile, data: bytes, create: bool) -> None:  # noqa: FBT001 -- run_sync passes no keywords
    if len(data) > COPY_MAX_BYTES:
        raise StorageError(f"the configuration is too long to be copied to {file}")
    storage = open_existing(file.target)
    if storage is None:
        return
    try:
        known = storage.read(file.stored_name, COPY_MAX_BYTES + 1)
    except StorageError:
        known = b""  # a link, or unreadable: a file takes its place
    if known is not None and is_append_only(file.target):
        return  # the first copy stays until the keeper removes it
    if known != data and (create or known is not None):
        storage.replace(file.stored_name, data)
