"""What the images of pulled disks were: the package holds what was on them, raw."""

from collections.abc import Mapping

from anyio import to_thread
from msgspec.structs import replace

from virtbackup_async.engine.backup.selection import Selection
from virtbackup_async.model.backup import DiskRecord, Original
from virtbackup_async.model.domain import BackingImage
from virtbackup_async.qemu.qcow2 import layout_of


async def with_originals(
    records: Mapping[str, DiskRecord], selection: Selection
) -> dict[str, DiskRecord]:
    """Return the records, those of pulled disks with what their images are."""
    with_them = dict(records)
    for dev, chain in selection.chains.items():
        if dev in with_them:
            original = await to_thread.run_sync(_original, chain[0])
            with_them[dev] = replace(with_them[dev], original=original)
    return with_them


def _original(image: BackingImage) -> Original:
    return Original(image.format, layout_of(image.path) if image.format == "qcow2" else None)
