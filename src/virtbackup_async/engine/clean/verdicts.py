"""What ``clean`` and ``forget`` say of a backup before they touch it."""

from collections.abc import Sequence

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.engine.clean.broken import BrokenPackage
from virtbackup_async.engine.inventory.dates import date_of_name, local_time, time_of
from virtbackup_async.engine.inventory.freed import package_paths
from virtbackup_async.engine.inventory.occupied import occupied_bytes
from virtbackup_async.events import CleanVerdict


async def verdict_on(
    group: str, found: FoundBackup, *, keep: bool, reasons: Sequence[str]
) -> CleanVerdict:
    """Return the verdict on a complete backup."""
    definition, images = found.definition, found.definition.images
    return CleanVerdict(
        group=group,
        domain=definition.domain_name,
        backup=definition.name,
        date=local_time(definition).isoformat(),
        definition=str(found.path),
        keep=keep,
        reasons=tuple(reasons),
        damaged=definition.is_damaged,
        occupied_bytes=await occupied_bytes([*package_paths(found), found.path]),
        stored_bytes=sum(image.stored_bytes for image in images) if images else None,
        uuid=definition.domain_uuid,
    )


async def verdict_on_broken(
    group: str, domain: str, broken: BrokenPackage, *, keep: bool, reasons: Sequence[str]
) -> CleanVerdict:
    """Return the verdict on a broken backup; its date is that in its name, or empty."""
    date = date_of_name(broken.name)
    return CleanVerdict(
        group=group,
        domain=domain,
        backup=broken.name,
        date="" if date is None else time_of(date).isoformat(),
        definition=str(broken.path),
        keep=keep,
        reasons=tuple(reasons),
        occupied_bytes=await occupied_bytes([*broken.files, broken.path]),
        broken=True,
    )
