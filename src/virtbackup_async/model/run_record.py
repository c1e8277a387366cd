"""One run of a command, as the history in a target keeps it."""

from enum import StrEnum

from msgspec import Struct


class Outcome(StrEnum):
    """What became of one domain in a run."""

    DONE = "done"
    FAILED = "failed"
    VERIFIED = "verified"
    DAMAGED = "damaged"
    COPIED = "copied"
    NOT_COPIED = "not copied"


class DomainRun(Struct, frozen=True, gc=False):
    """What one run did to one domain of one group.

    Attributes:
        outcome: an ``Outcome``; a newer program may have others.
        start: when its work began, in seconds since the epoch.
        end: when its work ended.
        backup: the backup's name; None where there is none.
        phases: the name of each phase, and when it began, in seconds since ``start``.
        frozen_ms: how long the guest's file systems were frozen; None if they were not.
        error: why it failed.
    """

    group: str
    domain: str
    outcome: str
    start: float
    end: float
    backup: str | None = None
    phases: tuple[tuple[str, float], ...] = ()
    method: str | None = None
    quiesced: bool | None = None
    frozen_ms: int | None = None
    read_bytes: int = 0
    data_bytes: int = 0
    stored_bytes: int = 0
    error: str | None = None


class RunRecord(Struct, frozen=True, gc=False):
    """One run of a command.

    Attributes:
        run_id: equal for the records of one run in several targets, and for those only.
        version: of the program.
        start: in seconds since the epoch.
        end: the same.
        error: the sentence of the run's summary.
        domains: those whose groups have this target.
        removed: how many backups it removed from this target.
        used_bytes: of the target's file system, when the run ended.
        free_bytes: what an ordinary user could still write there.
        requests: to the target, if it is an object store, by verb.
        sent_bytes: by these requests.
        received_bytes: by these requests.
    """

    run_id: str
    command: str
    host: str
    version: str
    start: float
    end: float
    exit_code: int
    error: str | None = None
    domains: tuple[DomainRun, ...] = ()
    removed: int = 0
    used_bytes: int | None = None
    free_bytes: int | None = None
    requests: dict[str, int] = {}
    sent_bytes: int = 0
    received_bytes: int = 0
