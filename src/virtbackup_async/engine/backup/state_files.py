"""The files of a domain's state outside its disks: UEFI variables, TPM.

``selection`` finds them before anything is touched, so that the pending file can name them;
``state_copy`` copies them. Each part that has no file has a reason instead.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from anyio import to_thread
from msgspec import Struct

from virtbackup_async.events import Warned
from virtbackup_async.model import names
from virtbackup_async.model.domain import DomainInfo
from virtbackup_async.model.domain_state import LABELS, StatePlace, state_places
from virtbackup_async.model.names import is_kept

# swtpm writes under this name before it replaces a file.
_HALF_WRITTEN = "TMP"


class StateFile(Struct, frozen=True):
    """One file of a domain's state, with its path on the host."""

    kind: str
    path: Path
    format: str = "raw"

    def name_in(self, backup: str) -> str:
        """Return its name inside the package of the backup."""
        return names.state_file(backup, self.kind, self.path.name)


class DomainState(Struct, frozen=True):
    """The files of a domain's state; ``missing`` has, by kind, why some have none."""

    files: tuple[StateFile, ...]
    missing: dict[str, str]


async def find_state(info: DomainInfo) -> DomainState:
    """Find the files of a domain's state.

    Raises:
        DefinitionError: the domain's XML cannot be read.
    """
    return await to_thread.run_sync(_find, info)


def missing(domain: str, kind: str, reason: str) -> Warned:
    """Return the warning that a part of a domain's state will not be in its backup."""
    return Warned(f"{LABELS[kind]} will not be in the backup: {reason}", domain)


def _find(info: DomainInfo) -> DomainState:
    files: list[StateFile] = []
    gone: dict[str, str] = {}
    for place in state_places(info):
        try:
            found = list(_files(place))
        except OSError as error:
            gone[place.kind] = f"{error.filename}: {error.strerror}"
            continue
        files += found
        if not found:
            gone[place.kind] = place.reason or f"nothing is in {place.path}"
    return DomainState(tuple(files), gone)


def _files(place: StatePlace) -> Iterator[StateFile]:
    if place.path is None:
        return
    if not place.is_directory:
        place.path.stat()
        yield StateFile(place.kind, place.path, place.format)
        return
    with os.scandir(place.path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            is_state = not (entry.name.startswith((".", _HALF_WRITTEN)) or is_kept(entry.name))
            # libvirt makes no symlinks there.
            if is_state and entry.is_file(follow_symlinks=False):
                yield StateFile(place.kind, place.path / entry.name)
