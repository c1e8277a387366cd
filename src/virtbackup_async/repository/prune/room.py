"""Which packs can be repacked in the free space: those with the fewest needed bytes first.

Called by the prune. Repacking needs space before it frees any. Where space is short, a few packs
are repacked in each round, and the next round has more.
"""

from collections.abc import Mapping
from typing import Final

from virtbackup_async.repository.format.index_format import RECORD_BYTES
from virtbackup_async.repository.prune.mark import Need

# For the heads of packs and segments, the note, and names.
_MARGIN_BYTES: Final = 256 * 1024


def fitting(copied: Mapping[bytes, Need], room_bytes: int, most_packs: int) -> dict[bytes, Need]:
    """Return the packs whose needed chunks together fit into some room, fewest bytes first."""
    room_bytes -= _MARGIN_BYTES
    found: dict[bytes, Need] = {}
    for pack, need in sorted(copied.items(), key=lambda item: (item[1].length_bytes, item[0])):
        room_bytes -= need.length_bytes + need.chunks * RECORD_BYTES
        if room_bytes < 0 or len(found) == most_packs:
            break
        found[pack] = need
    return found
