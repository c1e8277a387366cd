"""A guest that another host has backed up since this one did: it came back, or there are two of it.

Guests are told apart by their UUIDs. A clone that kept the UUID of its original is on two hosts at
once, and nothing in the target tells it from a guest that migrates to and fro. Pure.
"""

from collections.abc import Iterator, Sequence

from virtbackup_async.catalog.scanning import FoundBackup


def warn_of_return(complete: Sequence[FoundBackup]) -> Iterator[str]:
    """Yield a warning if another host made the last backup, and the new one's host one before it.

    Args:
        complete: the guest's backups, oldest first; the last is the new one.
    """
    if not complete or complete[-1].path.target.is_local:
        return
    *before, host = (found.definition.host for found in complete)
    last = before[-1] if before else None
    if None not in {host, last} and last != host and host in before:
        yield (
            f"the host {last} has backed it up since: if it did not migrate there and back, two "
            "guests have this UUID, and one of them needs a new one"
        )
