"""What is known of all guests and targets at one moment: the input of the overview.

``engine/survey`` collects it, ``reporting/overview`` draws the conclusions. All dates are seconds
since the epoch. ``gc=False``: there may be one for each of some 100,000 backups.
"""

from msgspec import Struct

from virtbackup_async.model.run_record import RunRecord


class BackupFacts(Struct, frozen=True, gc=False):
    """A complete backup.

    Attributes:
        verified: what ``verify`` found last; None if it never read the backup.
        lacks: what was left out of it that holds data, and why.
        full_reason: why a disk was read in full, where it was, and that says something.
        audited_bytes: unchanged data that was read and compared anyway.
        audit_failed: that found a dirty bitmap wrong.
        expires: ``clean`` would remove it now.
    """

    name: str
    date: int
    verified: bool | None = None
    verified_date: int | None = None
    quiesced: bool | None = None
    not_quiesced: str | None = None
    lacks: tuple[tuple[str, str], ...] = ()
    pinned: bool = False
    expires: bool = False
    size_bytes: int = 0
    data_bytes: int = 0
    stored_bytes: int = 0
    read_bytes: int = 0
    frozen_ms: int | None = None
    full_reason: str | None = None
    audited_bytes: int = 0
    audit_failed: bool = False


class BrokenFacts(Struct, frozen=True, gc=False):
    """What should be a backup and cannot be read; ``date`` is None where its name has none."""

    name: str
    date: int | None
    error: str


class GuestFacts(Struct, frozen=True):
    """The backups of one domain in one group.

    Attributes:
        max_age_s: how old the newest good backup may become.
        is_known: whether libvirt knows the domain; None if libvirt did not answer.
        backups: oldest first.
    """

    group: str
    domain: str
    target: str
    max_age_s: float
    is_known: bool | None = None
    backups: tuple[BackupFacts, ...] = ()
    broken: tuple[BrokenFacts, ...] = ()


class RepositoryFacts(Struct, frozen=True):
    """The chunks of a target's repository, and what the backups in it hold."""

    data_bytes: int
    chunk_bytes: int
    stored_bytes: int


class TargetFacts(Struct, frozen=True):
    """A target.

    Attributes:
        groups: that have it.
        error: why it cannot be read; then nothing else is known.
        used_bytes: of its file system.
        free_bytes: what an ordinary user can still write there.
        history: its runs, oldest first.
        problems: what of its history or its repository cannot be read.
        unclaimed: domains that have backups there, and that no group means.
    """

    path: str
    groups: tuple[str, ...]
    error: str | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    repository: RepositoryFacts | None = None
    history: tuple[RunRecord, ...] = ()
    problems: tuple[str, ...] = ()
    unclaimed: tuple[str, ...] = ()


class Leftover(Struct, frozen=True):
    """What a killed backup left: one line, and the command that removes it."""

    domain: str
    message: str
    command: tuple[str, ...] = ()


class RunningBackup(Struct, frozen=True):
    """A backup that is being made now, or a killed one that is being undone.

    Attributes:
        date: since when, in seconds since the epoch.
        doing: what the process does, in its own words: ``backup of group main``, ``clean``.
    """

    domain: str
    backup: str
    date: float
    doing: str = "backup"
    pid: int | None = None


class KeptBackup(Struct, frozen=True):
    """What retention does with one backup of the guest that stands for its group.

    Attributes:
        reasons: why it stays.
        goes: the day on which ``clean`` removes it, as ``date.toordinal``; None if not soon.
    """

    name: str
    date: int
    reasons: tuple[str, ...]
    goes: int | None = None


class Calendar(Struct, frozen=True):
    """What retention does with the backups of one guest of a group, oldest first."""

    group: str
    domain: str
    backups: tuple[KeptBackup, ...]


class Facts(Struct, frozen=True):
    """All that is known.

    Attributes:
        at: the moment, in seconds since the epoch.
        program: the words that start the program with this configuration.
        groups: of the configuration, each with whether it has ``autostart``.
        unclaimed: domains that libvirt knows and no group means.
        hypervisor_error: why libvirt did not answer.
    """

    at: float
    host: str
    version: str
    config: str
    program: tuple[str, ...] = ("virtbackup",)
    groups: tuple[tuple[str, bool], ...] = ()
    guests: tuple[GuestFacts, ...] = ()
    targets: tuple[TargetFacts, ...] = ()
    unclaimed: tuple[str, ...] = ()
    hypervisor_error: str | None = None
    running: tuple[RunningBackup, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    calendars: tuple[Calendar, ...] = ()
