"""Pinning one backup, so that ``clean`` never removes it, and taking that back."""

from virtbackup_async.catalog.amendment import amend_definition
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.inventory.chosen_backup import find_backup
from virtbackup_async.events import PinChanged


async def set_pinned(
    config: Config, group: str, domain: str, date: str | None, *, pinned: bool
) -> PinChanged:
    """Write the pin into the backup's definition; arguments and errors as ``find_backup``.

    Raises:
        NotFoundError: there is no such backup, or it was removed this moment.
        StorageError: the definition cannot be written.
    """
    found = await find_backup(config, group, domain, date)
    await amend_definition(found.path, {"pinned": pinned})
    return PinChanged(group, domain, found.definition.name, str(found.path), pinned)
