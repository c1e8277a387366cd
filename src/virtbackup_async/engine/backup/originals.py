"""What the images of pulled disks were: the package holds what was on them, raw."""

from collections.abc import Mapping

from msgspec.structs import replace

from virtbackup_async.engine.backup.selection import Selection
from virtbackup_async.host.interface import ImageHost
from virtbackup_async.model.backup import DiskRecord, Original
from virtbackup_async.model.domain import BackingImage


async def with_originals(
    images: ImageHost, records: Mapping[str, DiskRecord], selection: Selection
) -> dict[str, DiskRecord]:
    """Return the records, those of pulled disks with what their images are."""
    with_them = dict(records)
    for dev, chain in selection.chains.items():
        if dev in with_them:
            original = await _original(images, chain[0])
            with_them[dev] = replace(with_them[dev], original=original)
    return with_them


async def _original(images: ImageHost, image: BackingImage) -> Original:
    head = await images.head(image.path) if image.format == "qcow2" else None
    return Original(image.format, head.layout if head is not None else None)
