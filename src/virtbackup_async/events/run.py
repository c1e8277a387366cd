"""What any command may say: its begin, its end, what went wrong beside its work."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The work of a command is known; nothing has been touched yet."""

    kind: ClassVar[str] = "run_started"
    command: str
    domains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the admin should know; the work goes on."""

    kind: ClassVar[str] = "warning"
    message: str
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class HookFailed:
    """A command that the configuration names failed; ``group`` is None for those of the run."""

    kind: ClassVar[str] = "hook_failed"

    hook: str
    group: str | None
    error: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The last word of every command."""

    kind: ClassVar[str] = "summary"
    ok: bool
    done: tuple[str, ...]
    failed: tuple[str, ...]
    exit_code: int
    error: str | None = None
