"""The history of a target: one line of JSON for each run, the newest last.

::

    TARGET/.virtbackup-history

A run appends its line when it has ended, so the file is never needed to restore anything, and no
run fails because of it. Any line, and the whole file, may be damaged or hostile: what is no record
is left out and counted. Two runs may end at once: each holds ``flock`` on the file while it writes.
A file that has grown too long is replaced by a shorter one that knows less of old runs.

No other storage can append to a file, so there each run makes one::

    TARGET/.virtbackup-runs/1772334900-0123456789abcdef

Many of them are joined into one before they are removed: a run that is in two is one run.
docs/reference/formats.md ("History") is the reference.
"""

import fcntl
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated, Final, TypeVar

import anyio
import msgspec
from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace

from virtbackup_async.catalog.existing import open_existing
from virtbackup_async.catalog.raw_json import DATE_MAX
from virtbackup_async.errors import LockHeldError, StorageError
from virtbackup_async.files import lacks
from virtbackup_async.files.refusals import close, storage_error
from virtbackup_async.files.target_path import TargetPath
from virtbackup_async.model.run_record import DomainRun, RunRecord
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import Kind, Storage

FILE: Final = ".virtbackup-history"
RUNS: Final = ".virtbackup-runs"
RUN_FILES_MAX: Final = 200
_RUN_FILE: Final = re.compile(r"\d{10,12}-[0-9a-f]{16}")
_RUN_FILE_MAX_BYTES: Final = 64 << 20
_TOKEN_BYTES: Final = 8
LOCK_TIMEOUT_S: Final = 5.0
_POLL_INTERVAL_S: Final = 0.05
TEXT_MAX: Final = 1000
PHASES_MAX: Final = 32

# How many of the newest runs keep the phases of their domains, how many their domains, how many
# stay: the first of these that fits is taken.
_STEPS: Final = (
    (30, 400, 4000),
    (10, 100, 4000),
    (2, 35, 2000),
    (1, 10, 1000),
    (0, 2, 500),
    (0, 0, 500),
)

VERBS_MAX: Final = 16
Verb = Annotated[str, msgspec.Meta(max_length=32)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]
Date = Annotated[float, msgspec.Meta(ge=0, le=DATE_MAX)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Limits(Struct, frozen=True):
    """How long the file may become.

    Attributes:
        file_bytes: from this length on it is shortened; a reader reads no more than its end.
        kept_bytes: what it is shortened to.
    """

    file_bytes: int = 32 << 20
    kept_bytes: int = 16 << 20


USUAL_LIMITS: Final = Limits()


class DomainWire(msgspec.Struct, omit_defaults=True):
    """One domain of a run."""

    group: Text
    domain: Text
    outcome: Text
    start: Date
    end: Date
    backup: Text | None = None
    phases: Annotated[
        tuple[tuple[Text, Annotated[float, msgspec.Meta(ge=0)]], ...],
        msgspec.Meta(max_length=PHASES_MAX),
    ] = ()
    method: Text | None = None
    quiesced: bool | None = None
    frozen_ms: Bytes | None = None
    read_bytes: Bytes = 0
    data_bytes: Bytes = 0
    stored_bytes: Bytes = 0
    error: Text | None = None


class RunWire(msgspec.Struct, omit_defaults=True):
    """One line."""

    run_id: Text
    command: Text
    host: Text
    version: Text
    start: Date
    end: Date
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)]
    error: Text | None = None
    domains: tuple[DomainWire, ...] = ()
    removed: Bytes = 0
    used_bytes: Bytes | None = None
    free_bytes: Bytes | None = None
    requests: Annotated[dict[Verb, Bytes], msgspec.Meta(max_length=VERBS_MAX)] = {}
    sent_bytes: Bytes = 0
    received_bytes: Bytes = 0


R = TypeVar("R", RunRecord, DomainRun)

_DECODER: Final = msgspec.json.Decoder(RunWire)


class History(Struct, frozen=True):
    """What a history says.

    Attributes:
        runs: oldest first, as far as they can be read.
        damaged: how many lines cannot.
    """

    runs: tuple[RunRecord, ...] = ()
    damaged: int = 0


async def read_history(target: StorageLocation, limits: Limits = USUAL_LIMITS) -> History:
    """Return the runs of a target; none where there is no history.

    Raises:
        StorageError: it is no regular file, or cannot be read.
    """
    directory = target.plain_directory
    if directory is None:
        return await to_thread.run_sync(_read_records, target)
    return await to_thread.run_sync(_read, directory, limits)


async def append_run(
    target: StorageLocation,
    record: RunRecord,
    *,
    create: bool,
    timeout_s: float = LOCK_TIMEOUT_S,
    limits: Limits = USUAL_LIMITS,
) -> None:
    """Append a run to the history of a target.

    Args:
        target: the target; nothing is made where it is missing.
        record: the run.
        create: begin a history where there is none.
        timeout_s: how long to wait for another run that writes.
        limits: how long the file may become.

    Raises:
        StorageError: it is no regular file, or cannot be written.
        LockHeldError: another process holds the file for too long.
    """
    directory = target.plain_directory
    if directory is None:
        await to_thread.run_sync(_add_record, target, record, create, limits)
        return
    deadline_s = anyio.current_time() + timeout_s
    while not await to_thread.run_sync(_append, directory, record, create, limits):
        if anyio.current_time() >= deadline_s:
            raise LockHeldError(f"another process writes {directory / FILE}")
        await anyio.sleep(_POLL_INTERVAL_S)


def dumps(record: RunRecord) -> bytes:
    """Return the line of a run, its end included.

    Raises:
        StorageError: it is not what a reader takes.
    """
    try:
        wire = msgspec.convert(record, RunWire, from_attributes=True)
    except msgspec.ValidationError as error:
        raise StorageError(f"the run cannot be recorded: {error}") from error
    return msgspec.json.encode(wire) + b"\n"


def loads(data: bytes) -> History:
    """Return the runs in a history's content, oldest first."""
    by_id: dict[str, list[RunRecord]] = {}
    damaged = 0
    for line in data.split(b"\n"):
        if not line.strip():
            continue
        run = _run(line)
        if run is None:
            damaged += 1
        else:
            by_id.setdefault(run.run_id, []).append(run)
    runs = sorted(map(_joined, by_id.values()), key=lambda run: run.start)
    return History(tuple(runs), damaged)


def _joined(lines: Sequence[RunRecord]) -> RunRecord:
    """Return the last line of a run, with the domains of all: two paths may lead to one target."""
    if len(lines) == 1:
        return lines[0]
    domains = dict.fromkeys(domain for line in lines for domain in line.domains)
    return replace(lines[-1], domains=tuple(domains))


def _run(line: bytes) -> RunRecord | None:
    try:
        return msgspec.convert(_DECODER.decode(line), RunRecord, from_attributes=True)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def clipped(record: RunRecord) -> RunRecord:
    """Return a record with texts that JSON can hold, no longer than a reader takes."""
    return _with_clipped_texts(
        replace(record, domains=tuple(_with_clipped_texts(one) for one in record.domains))
    )


def _with_clipped_texts(value: R) -> R:
    texts = {
        field: text
        for field in value.__struct_fields__
        if isinstance(text := getattr(value, field), str)
    }
    clipped = {field: _clipped(text) for field, text in texts.items()}
    return value if clipped == texts else replace(value, **clipped)


def _clipped(text: str) -> str:
    # A name may hold bytes that are no UTF-8.
    return text.encode(errors="backslashreplace").decode()[:TEXT_MAX]


def _file(target: Path) -> TargetPath:
    return TargetPath(target) / FILE


def _read(target: Path, limits: Limits) -> History:
    try:
        fd = _file(target).open_file()
    except FileNotFoundError:
        return History()
    except OSError as error:
        raise storage_error("read", target / FILE, error) from error
    try:
        return loads(_end_of(fd, limits))
    except OSError as error:
        raise storage_error("read", target / FILE, error) from error
    finally:
        close(fd)


def _end_of(fd: int, limits: Limits) -> bytes:
    """Return whole lines from the end of the file, as long as all of it may be."""
    length = os.fstat(fd).st_size
    # A file that two runs have just written to may be a little longer.
    start = max(0, length - 2 * limits.file_bytes)
    data = bytearray()
    while len(data) < length - start:
        piece = os.pread(fd, length - start - len(data), start + len(data))
        if not piece:
            break
        data += piece
    return bytes(data) if start == 0 else bytes(data).partition(b"\n")[2]


def _append(target: Path, record: RunRecord, create: bool, limits: Limits) -> bool:  # noqa: FBT001 -- run_sync passes no keywords
    """Append the record; return False if another process has the file."""
    file = _file(target)
    try:
        fd = _open(file, create=create)
        if fd is None:
            return True
        try:
            if not lacks.lock(fd, fcntl.LOCK_EX, target) or not _is_at(file, fd):
                return False
            if os.fstat(fd).st_nlink > 1:
                raise StorageError(f"{file} has a second name, and may be any file of the host")
            _write(file, fd, clipped(record), limits)
        finally:
            close(fd)
    except OSError as error:
        raise storage_error("write", file.path, error) from error
    return True


def _open(file: TargetPath, *, create: bool) -> int | None:
    flags = os.O_RDWR | os.O_APPEND
    with suppress(FileNotFoundError):
        return file.open_file(flags)
    if not create:
        return None
    with suppress(FileExistsError):
        return file.claim(flags)
    return file.open_file(flags)


def _is_at(file: TargetPath, fd: int) -> bool:
    """Tell whether the open file is still the history: another run may have replaced it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), file.status())
    return False


def _write(file: TargetPath, fd: int, record: RunRecord, limits: Limits) -> None:
    line = dumps(record)
    length = os.fstat(fd).st_size
    if length + len(line) > limits.file_bytes:
        known = loads(_end_of(fd, limits)).runs
        file.replace(b"".join(shortened([*known, record], limits.kept_bytes)))
        return
    # A run that was killed, or a full disk, may have left a part of a line.
    if length and os.pread(fd, 1, length - 1) != b"\n":
        line = b"\n" + line
    try:
        written = os.write(fd, line)
        if written < len(line):
            os.write(fd, line[written:])
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, length)
        raise


def shortened(runs: Sequence[RunRecord], max_bytes: int) -> list[bytes]:
    """Return lines that fit into ``max_bytes``: they say less of old runs, and leave out oldest."""
    lines: list[bytes] = []
    for step in _STEPS:
        lines = [*_by_step(runs, *step)]
        if sum(map(len, lines)) <= max_bytes:
            return lines
    return _newest(lines, max_bytes)


def _by_step(
    runs: Sequence[RunRecord], with_phases: int, with_domains: int, count: int
) -> Iterator[bytes]:
    chosen = runs[-count:]
    for place, run in enumerate(chosen):
        newer = len(chosen) - 1 - place
        if newer < with_phases:
            yield dumps(run)
        elif newer < with_domains:
            yield dumps(replace(run, domains=tuple(replace(d, phases=()) for d in run.domains)))
        else:
            yield dumps(replace(run, domains=()))


def _newest(lines: Iterable[bytes], max_bytes: int) -> list[bytes]:
    kept: list[bytes] = []
    left = max_bytes
    for line in reversed([*lines]):
        left -= len(line)
        if left < 0:
            break
        kept.append(line)
    return kept[::-1]


def _read_records(target: StorageLocation) -> History:
    storage = open_existing(target)
    if storage is None:
        return History()
    return loads(b"".join(data or b"?\n" for data in _records(storage).values()))


def _records(storage: Storage) -> dict[str, bytes | None]:
    """Return the content of the files of runs, by name, oldest first; None if it cannot be read."""
    found: dict[str, bytes | None] = {}
    try:
        with closing(storage.open_directory(RUNS)) as opened:
            names = sorted(filter(_RUN_FILE.fullmatch, opened.names()))
            for name, content in opened.read_each(names, _RUN_FILE_MAX_BYTES):
                if isinstance(content, FileNotFoundError):
                    continue  # another run has joined it with others
                found[name] = None if isinstance(content, OSError) else content
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise storage_error("read", storage.where(RUNS), error) from error
    return found


def _add_record(target: StorageLocation, record: RunRecord, create: bool, limits: Limits) -> None:  # noqa: FBT001 -- run_sync passes no keywords
    storage = open_existing(target)
    if storage is None or (not create and not storage.exists(RUNS)):
        return
    storage.make_directory(RUNS)
    storage.put_new(_new_run_file(record.end), dumps(clipped(record)))
    if len(storage.names(RUNS, {Kind.FILE})) > RUN_FILES_MAX:
        _join_records(storage, limits)


def _join_records(storage: Storage, limits: Limits) -> None:
    """Put all runs into one file, then remove the files that they were in."""
    known = {name: data for name, data in _records(storage).items() if data is not None}
    runs = loads(b"".join(known.values())).runs
    storage.put_new(_new_run_file(0), b"".join(shortened(runs, limits.kept_bytes)))
    for name in known:
        storage.remove(f"{RUNS}/{name}")


def _new_run_file(end_s: float) -> str:
    return f"{RUNS}/{int(end_s):010}-{secrets.token_hex(_TOKEN_BYTES)}"
