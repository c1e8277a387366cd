"""The events of any command: its start, its end, its warnings and findings."""

from enum import StrEnum
from typing import ClassVar, Final

from msgspec import Struct

SCHEMA_VERSION: Final = 4


class RunInfo(Struct, frozen=True):
    """The first line of every command: which run this is, and what wrote it.

    ``schema_version`` counts the changes of these events; none takes a field away.
    """

    kind: ClassVar[str] = "run_info"
    run_id: str
    command: str
    host: str
    version: str
    pid: int
    schema_version: int = SCHEMA_VERSION


class RunStarted(Struct, frozen=True):
    """The domains of a run are known; nothing has been touched yet."""

    kind: ClassVar[str] = "run_started"
    command: str
    domains: tuple[str, ...]


class Warned(Struct, frozen=True):
    """Something the admin should know; the run continues.

    ``code`` says what, where a program may want to know; it never changes.
    """

    kind: ClassVar[str] = "warning"
    message: str
    domain: str | None = None
    group: str | None = None
    backup: str | None = None
    uuid: str | None = None
    code: str | None = None


class HookStarted(Struct, frozen=True):
    """A hook runs; ``group`` is None for a hook of the run. No backup begins during ``before``."""

    kind: ClassVar[str] = "hook_started"

    hook: str
    group: str | None


class HookEnded(Struct, frozen=True):
    """A hook has ended, well or not."""

    kind: ClassVar[str] = "hook_ended"

    hook: str
    group: str | None
    duration_s: float


class HookFailed(Struct, frozen=True):
    """A hook failed; ``group`` is None for a hook of the run."""

    kind: ClassVar[str] = "hook_failed"

    hook: str
    group: str | None
    error: str


class TargetSpace(Struct, frozen=True):
    """The space of a target after all backups of a run, or as ``list`` finds it.

    ``groups`` are those of the list that have the target.
    """

    kind: ClassVar[str] = "target_space"

    target: str
    total_bytes: int
    free_bytes: int
    groups: tuple[str, ...] = ()


class Level(StrEnum):
    """How serious a finding of ``doctor`` or ``config check`` is."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(Struct, frozen=True):
    """The result of one check of ``doctor`` or ``config``, and what to do about it.

    ``code`` says what was found and never changes: docs/reference/doctor.md lists the codes.
    """

    kind: ClassVar[str] = "finding"

    level: Level
    check: str
    subject: str
    message: str
    advice: str | None = None
    code: str | None = None


class Summary(Struct, frozen=True):
    """The last event of every command.

    ``not_started`` are the domains of the run that were not started. ``data_bytes``,
    ``read_bytes`` and ``stored_bytes`` are those of all backups that are done. ``heads`` has a line
    for each of them, to compare with later: ``web 7:9f86d081884c7d65``. ``contradictions`` are the
    warnings that a target is older than it was, or was changed. ``requests``, ``sent_bytes`` and
    ``received_bytes`` are the sums of all requests to object stores.
    """

    kind: ClassVar[str] = "summary"
    ok: bool
    done: tuple[str, ...]
    failed: tuple[str, ...]
    exit_code: int
    error: str | None = None
    run_id: str | None = None
    error_code: str | None = None
    advice: str | None = None
    duration_s: float | None = None
    not_started: tuple[str, ...] = ()
    warnings: int = 0
    data_bytes: int = 0
    read_bytes: int = 0
    stored_bytes: int = 0
    heads: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()
    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
