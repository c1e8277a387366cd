"""The events of `check` and `log`."""

from typing import ClassVar

from msgspec import Struct


class GuestHealth(Struct, frozen=True):
    """A guest that is not as it should be; ``age_s`` is that of its newest good backup.

    ``host`` is the host that it belongs to, if that is another one than this.
    """

    guest: str
    group: str
    domain: str
    status: str
    reason: str
    age_s: float | None
    uuid: str | None = None
    host: str | None = None


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


class StatusGuest(Struct, frozen=True):
    """A guest in the status; ``days`` has a letter for each of the last days, the newest last.

    ``v`` is a verified backup, ``m`` one that was made, ``p`` one that is not quiesced or not
    whole, ``e`` one that is removed by now, ``f`` a failure, ``d`` damage, ``n`` nothing, and ``u``
    a target that cannot be read.
    """

    guest: str
    group: str
    domain: str
    standing: str
    state: str | None
    age_s: float | None
    max_age_s: float | None
    days: str
    uuid: str | None = None
    host: str | None = None


class StatusTarget(Struct, frozen=True):
    """A target in the status; ``full_unix`` is when it is full by its growth, if it grows."""

    target: str
    error: str | None
    free_bytes: int | None
    used_bytes: int | None
    full_unix: float | None


class RunningNow(Struct, frozen=True):
    """A backup that is being made, and the process that makes it.

    ``doing`` is what the process says it does, such as ``backup of group main``, or ``clean`` if it
    undoes a killed backup.
    """

    domain: str
    backup: str
    since_s: float
    since_unix: float
    doing: str
    pid: int | None


class Timer(Struct, frozen=True):
    """A timer of systemd that starts this program, and when it does next."""

    unit: str
    next_unix: float


class StatusShown(Struct, frozen=True):
    """How things are: whether every guest can be restored, what runs, and what comes next.

    ``standing`` is ``good``, ``look``, ``bad``, ``lost`` or ``unknown``. ``guests`` are all, the
    worst first; ``late`` are those without a good backup that is young enough. ``more`` qualifies
    the sentence, and says what is not known. ``undo`` is the command line for the leftovers, if
    there is one. ``unusual`` has a line for each guest whose data changed suddenly.
    """

    kind: ClassVar[str] = "status"
    standing: str
    sentence: str
    guests: tuple[StatusGuest, ...]
    late: tuple[GuestHealth, ...]
    running: tuple[RunningNow, ...]
    targets: tuple[StatusTarget, ...]
    timers: tuple[Timer, ...]
    leftovers: tuple[str, ...]
    more: tuple[str, ...] = ()
    undo: str | None = None
    unusual: tuple[str, ...] = ()
