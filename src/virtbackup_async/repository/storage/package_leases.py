"""Leases on packages: they keep packages from being removed where files cannot be locked.

Such a lease is a writer's, whose note also has marks of the packages::

    reader     takes its lease, which names the packages      then looks for removal notes
    remover    takes one too, and looks for others
               writes the removal note                        then looks for leases again

Of two removers at least one sees the other, so one works alone or none does. Either a reader sees
the note, and does not read; or the remover sees the reader's lease, and takes its note back. A mark
is a hash of the name of a package's first file, made with the key of an encrypted repository: the
store learns no name. Two packages might have one mark; then one stays for longer.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from threading import Lock
from typing import Final

from blake3 import blake3

from virtbackup_async.errors import CorruptError
from virtbackup_async.files.refusals import storage_error
from virtbackup_async.repository.format import sealed_json
from virtbackup_async.repository.storage.interface import LeaseLook, Storage
from virtbackup_async.repository.storage.layout import LEASES, Repository, lease_file, new_token
from virtbackup_async.repository.storage.leases import (
    READS,
    Lease,
    is_living,
    lease_holders,
    take_lease,
)

_MARK_DIGITS: Final = 8
# A lease has 4096 bytes for its note; a reader of more packages than fit holds all there are.
MAX_MARKS: Final = 400
_ALL: Final = "*"
_MAX_KNOWN: Final = 4096

_turn: Final = Lock()
_known: Final[OrderedDict[tuple[Storage, str], str]] = OrderedDict()


def take_package_lease(repository: Repository, names: Sequence[str]) -> Lease:
    """Take a lease on packages, to read them, or to remove one. Blocks.

    Args:
        repository: that the packages are in.
        names: the first file of each package.

    Raises:
        StorageError: it cannot be written.
    """
    marks = sorted({_mark(repository, name) for name in names})
    noted = "".join(marks) if len(marks) <= MAX_MARKS else _ALL
    return take_lease(repository.storage, new_token(), noted)


def is_used(repository: Repository, names: Iterable[str], own: Lease | None = None) -> bool:
    """Return whether a living process has a lease on a package with one of these files. Blocks.

    Args:
        repository: that the package is in.
        names: of files of the package.
        own: the caller's lease, which does not count.

    Raises:
        StorageError: the leases cannot be read.
    """
    storage = repository.storage
    wanted = {_mark(repository, name) for name in names}
    try:
        holders = [each for each in lease_holders(storage) if own is None or each != own.holder]
        suspects = [holder for holder in holders if _names_any(_noted(storage, holder), wanted)]
        return any(is_living(storage, suspects))
    except OSError as error:
        raise storage_error("read", storage.where(LEASES), error) from error


def _mark(repository: Repository, name: str) -> str:
    hashed = blake3(name.encode(errors="surrogateescape")).digest()
    return repository.sealing.id_of(hashed).hex()[:_MARK_DIGITS]


def _names_any(noted: str, wanted: Iterable[str]) -> bool:
    if noted == _ALL:
        return True
    marks = {noted[at : at + _MARK_DIGITS] for at in range(0, len(noted), _MARK_DIGITS)}
    return not marks.isdisjoint(wanted)


def _noted(storage: Storage, holder: str) -> str:
    """Return the marks in a lease. A holder never changes its note, so each is read once."""
    place = (storage, holder)
    with _turn:
        if place in _known:
            _known.move_to_end(place)
            return _known[place]
    noted = ""

    def look_only(look: LeaseLook) -> bool:
        nonlocal noted
        noted = _marks_in(look)
        return False

    with suppress(FileNotFoundError):
        storage.remove_lease_if(lease_file(holder), look_only)
    with _turn:
        _known[place] = noted
        while len(_known) > _MAX_KNOWN:
            _known.popitem(last=False)
    return noted


def _marks_in(look: LeaseLook) -> str:
    try:
        marks = sealed_json.loads(look.content, "lease").get(READS)
    except CorruptError:
        return ""
    return marks if isinstance(marks, str) else ""
