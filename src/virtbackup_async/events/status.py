"""The events of `check` and `log`."""

from typing import ClassVar

from msgspec import Struct


class GuestHealth(Struct, frozen=True):
    """A guest that is not as it should be; ``age_s`` is that of its newest good backup."""

    guest: str
    group: str
    domain: str
    status: str
    reason: str
    age_s: float | None


class HealthChecked(Struct, frozen=True):
    """Whether each guest has a good backup that is young enough, as monitoring plugins say it.

    ``status`` is ``ok``, ``warning``, ``critical`` or ``unknown``, and ``exit_code`` 0 to 3.
    """

    kind: ClassVar[str] = "health"
    status: str
    exit_code: int
    message: str
    guests: int
    oldest_s: float | None
    found: tuple[GuestHealth, ...] = ()


class ListedRun(Struct, frozen=True):
    """One run of a command, as the histories of the targets have it."""

    kind: ClassVar[str] = "past_run"
    run: str
    command: str
    host: str
    version: str
    start: str
    start_unix: float
    duration_s: float
    exit_code: int
    error: str | None
    done: tuple[str, ...]
    failed: tuple[str, ...]
    removed: int
    read_bytes: int
    stored_bytes: int
