"""This host's memory of the newest definitions of each domain in each target.

Somebody who can write to a target can bring back an older state of it; this memory is outside of
it, so it notices. One file for each domain in a target, in a directory of this host to which only
its user can write::

    STATE/heads/<target>.<16 hexadecimal digits>/<domain>.<16 hexadecimal digits>.json

A file is written after the definition that it is about, and before one is removed: a crash between
the two leaves a memory that is older than the target, which is no contradiction. It counts for the
repository that was in the target, so disks that take turns at one path are not mixed up.
docs/reference/formats.md ("Memory of a target") is the reference. All functions but ``holding``
block.
"""

import fcntl
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import msgspec
from anyio import to_thread
from msgspec import Struct

from virtbackup_async.catalog import host_names, links, raw_json
from virtbackup_async.errors import DefinitionError, StorageError
from virtbackup_async.files.directories import check_private, make_private
from virtbackup_async.files.durable import file_at
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.heads import SEQUENCE_MAX, RememberedDomain, SeenDefinition
from virtbackup_async.model.names import is_temporary
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import find_repository

DIRECTORY: Final = "heads"
SUFFIX: Final = ".json"
SEEN_MAX: Final = 500
"""How many of a domain's definitions are remembered, the newest: some 60 KiB."""
LOCK_TIMEOUT_S: Final = 10.0
_POLL_INTERVAL_S: Final = 0.05
_STRAY_AFTER_S: Final = 3600.0

Number = Annotated[int, msgspec.Meta(ge=1, le=SEQUENCE_MAX)]
Hash = Annotated[str, msgspec.Meta(pattern=links.PATTERN)]


class SeenWire(msgspec.Struct):
    """A definition that was seen."""

    name: str
    sequence: Number
    hash: Hash


class MemoryWire(msgspec.Struct, omit_defaults=True):
    """The complete file."""

    target: str
    domain: str
    sequence: Number
    repository: str | None = None
    uuid: str | None = None
    seen: Annotated[list[SeenWire], msgspec.Meta(max_length=SEEN_MAX)] = []
    missing: SeenWire | None = None
    accepted: Annotated[int, msgspec.Meta(ge=0, le=SEQUENCE_MAX)] = 0


class RememberedTarget(Struct, frozen=True):
    """All that this host remembers of a target.

    Attributes:
        domains: of the repository that is there now.
        others: how many domains it remembers of another repository in the same place.
        problems: a line for each file that cannot be read.
    """

    domains: tuple[RememberedDomain, ...] = ()
    others: int = 0
    problems: tuple[str, ...] = ()


class TargetMemory:
    """What this host remembers of one target, as it is now."""

    def __init__(self, state_directory: Path, target: StorageLocation) -> None:
        """Find out which repository is in the target. Blocks.

        Raises:
            StorageError, CorruptError, ConfigError: its repository cannot be read.
        """
        repository = find_repository(target)
        self._target = target
        self._repository = None if repository is None else repository.id.hex()
        place = target
        if target.is_local:
            place = StorageLocation.of(Path(os.path.realpath(target.directory)))
        self._state_directory = state_directory
        self._directory = state_directory / DIRECTORY / host_names.name_of_target(place)

    @asynccontextmanager
    async def holding(self) -> AsyncGenerator[None]:
        """Keep other processes of this host from changing the memory of the target.

        Without an answer within ten seconds the work goes on: then two definitions may get one
        number, which is reported.

        Raises:
            StorageError: the directory cannot be made, or is not private.
        """
        fd = await to_thread.run_sync(self._open)
        try:
            deadline_s = anyio.current_time() + LOCK_TIMEOUT_S
            while not _try_lock(fd):
                if anyio.current_time() > deadline_s:
                    break
                await anyio.sleep(_POLL_INTERVAL_S)
            yield
        finally:
            close(fd)

    def read(self, guest: Guest) -> RememberedDomain | None:
        """Return what is remembered of one domain; None for nothing.

        Raises:
            StorageError: it cannot be read, or others could have written it.
            DefinitionError: it is damaged.
        """
        if not self._is_private():
            return None
        found = _read(self._path(guest))
        return None if found is None else _remembered(found)

    def read_all(self) -> RememberedTarget:
        """Return all that is remembered.

        Raises:
            StorageError: it cannot be read, or others could have written it.
        """
        domains: list[RememberedDomain] = []
        problems: list[str] = []
        others = 0
        for path in self._files() if self._is_private() else ():
            try:
                found = _read(path)
            except (DefinitionError, StorageError) as error:
                problems.append(error.message)
                continue
            if found is None:
                continue
            if found.repository == self._repository:
                domains.append(_remembered(found))
            else:
                others += 1
        return RememberedTarget(tuple(domains), others, tuple(problems))

    def write(self, remembered: RememberedDomain) -> None:
        """Make what is remembered of a domain durable.

        Raises:
            StorageError: the directory is not private, not writable or full.
        """
        self._make()
        wire = MemoryWire(
            target=str(self._target),
            repository=self._repository,
            domain=remembered.domain,
            uuid=remembered.uuid,
            sequence=remembered.sequence,
            seen=list(map(_seen_wire, remembered.seen[-SEEN_MAX:])),
            missing=None if remembered.missing is None else _seen_wire(remembered.missing),
            accepted=remembered.accepted,
        )
        path = self._path(remembered.guest)
        file_at(path).replace(raw_json.dump(wire), None, None)
        self._remove_strays(path)

    def remove(self, guest: Guest) -> None:
        """Forget a domain, durably.

        Raises:
            StorageError: the directory is not writable.
        """
        if self._is_private():
            file_at(self._path(guest)).remove()

    def _path(self, guest: Guest) -> Path:
        identity = (self._repository or "", guest.name, guest.uuid or "")
        name = host_names.name_of(guest.name, *identity)
        return self._directory / f"{name}{SUFFIX}"

    def _is_private(self) -> bool:
        places = (self._state_directory, self._directory.parent, self._directory)
        return all(map(check_private, places))

    def _make(self) -> None:
        for directory in (self._state_directory, self._directory.parent, self._directory):
            make_private(directory)

    def _open(self) -> int:
        self._make()
        try:
            return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise storage_error("open", self._directory, error) from error

    def _files(self) -> Iterator[Path]:
        try:
            paths = sorted(self._directory.iterdir())
        except OSError as error:
            raise storage_error("read", self._directory, error) from error
        for path in paths:
            if path.name.endswith(SUFFIX) and not is_temporary(path.name):
                yield path

    def _remove_strays(self, written: Path) -> None:
        """Remove what processes left that died while they wrote, long before this file."""
        with suppress(OSError, StorageError):
            before_s = written.lstat().st_mtime - _STRAY_AFTER_S
            for path in self._directory.iterdir():
                if is_temporary(path.name) and path.lstat().st_mtime < before_s:
                    file_at(path).drop()


def loads(data: bytes, path: Path) -> MemoryWire:
    """Return the content of a file.

    Raises:
        DefinitionError: it is damaged.
    """

    def upgrade(raw: dict[str, Any]) -> dict[str, Any]:
        return raw

    return raw_json.parse(data, path, upgrade, MemoryWire)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True


def _read(path: Path) -> MemoryWire | None:
    try:
        return loads(raw_json.read_host_file(path), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("read", path, error) from error


def _remembered(wire: MemoryWire) -> RememberedDomain:
    seen = sorted(map(_seen, wire.seen), key=lambda one: one.sequence)
    missing = None if wire.missing is None else _seen(wire.missing)
    return RememberedDomain(
        wire.domain, wire.uuid, wire.sequence, tuple(seen), missing, wire.accepted
    )


def _seen(wire: SeenWire) -> SeenDefinition:
    return SeenDefinition(wire.name, wire.sequence, wire.hash)


def _seen_wire(seen: SeenDefinition) -> SeenWire:
    return SeenWire(seen.name, seen.sequence, seen.hash)
