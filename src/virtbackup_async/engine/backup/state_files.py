"""The files of a domain's state outside its disks: UEFI variables, TPM.

``selection`` finds them before anything is touched, so that the pending file can name them;
``state_copy`` copies them. Each part that has no file has a reason instead.
"""

from pathlib import Path

from msgspec import Struct

from virtbackup_async.errors import ImageError
from virtbackup_async.events import Warned
from virtbackup_async.host.interface import ImageHost
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


async def find_state(images: ImageHost, info: DomainInfo) -> DomainState:
    """Find the files of a domain's state.

    Raises:
        DefinitionError: the domain's XML cannot be read.
    """
    files: list[StateFile] = []
    gone: dict[str, str] = {}
    for place in state_places(info):
        try:
            found = await _files(images, place)
        except ImageError as error:
            gone[place.kind] = error.message
            continue
        files += found
        if not found:
            gone[place.kind] = place.reason or f"nothing is in {place.path}"
    return DomainState(tuple(files), gone)


def missing(domain: str, kind: str, reason: str) -> Warned:
    """Return the warning that a part of a domain's state will not be in its backup."""
    return Warned(f"{LABELS[kind]} will not be in the backup: {reason}", domain)


async def _files(images: ImageHost, place: StatePlace) -> list[StateFile]:
    if place.path is None:
        return []
    if not place.is_directory:
        await images.check_exists(place.path)
        return [StateFile(place.kind, place.path, place.format)]
    return [
        StateFile(place.kind, path)
        for path in await images.list_state(place.path)
        if not (path.name.startswith((".", _HALF_WRITTEN)) or is_kept(path.name))
    ]
