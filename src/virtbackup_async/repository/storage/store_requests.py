"""The requests of this process to object stores; quick to load, as each command asks for them."""

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from virtbackup_async.repository.storage.objects.traffic import Count

OBJECTS: Final = "virtbackup_async.repository.storage.objects.connecting"
"""The module that opens object stores, and knows those that were opened."""


def requests_so_far() -> "dict[str, dict[tuple[str, str], Count]]":
    """Return the counts by target, and by verb and kind of file; none where nothing was opened."""
    module = sys.modules.get(OBJECTS)
    if module is None:
        return {}
    found: dict[str, dict[tuple[str, str], Count]] = module.requests_so_far()
    return found
