"""The facts about all guests and targets at one moment: the input of the overview.

``engine/survey`` collects it, ``reporting/overview`` draws the conclusions. All dates are seconds
since the epoch. ``gc=False``: there might be one for each of some 100,000 backups.
"""

from msgspec import Struct

from virtbackup_async.model.run_record import RunRecord


class BackupFacts(Struct, frozen=True, gc=False):
    """A complete backup.

    Attributes:
        verified: the last result of ``verify``; None if it never read the backup.
        disks: what it may hold a copy of, by target name; those that were skipped included.
        lacks: the skipped disks and state that hold data, and the reasons.
        full_reason: why a disk was read in full, if one was and the reason is worth showing.
        audited_bytes: the bytes of unchanged data that were read and compared anyway.
        audit_failed: whether the audit found a dirty bitmap wrong.
        expires: whether ``clean`` would remove it now.
    """

    name: str
    date: int
    verified: bool | None = None
    verified_date: int | None = None
    quiesced: bool | None = None
    not_quiesced: str | None = None
    disks: tuple[str, ...] = ()
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
    """A backup that cannot be read; ``date`` is None if its name contains none."""

    name: str
    date: int | None
    error: str


class JumpFacts(Struct, frozen=True, gc=False):
    """A backup in which a guest's data changed suddenly, and the command that accepts that."""

    backup: str
    reason: str
    command: tuple[str, ...] = ()


class Contradicted(Struct, frozen=True, gc=False):
    """Something that this host has seen otherwise in a target, and what to do."""

    message: str
    advice: str


class GuestFacts(Struct, frozen=True):
    """The backups of one guest in one group.

    Attributes:
        max_age_s: how old the newest intact backup may become; None if that is not known.
        contradictions: what this host has seen otherwise in the target, each with what to do.
        head: number and hash of its newest definition, to compare with later.
        is_known: whether libvirt knows the domain; None if libvirt did not answer.
        backups: oldest first.
        jump: the first sudden change of its data that nobody has accepted.
        word: a text that means only this guest in the target, where that is not its name.
        hosts: the hosts whose runs were of this guest; none if all were.
        host: the host that it belongs to, if that is another one.
        uuid: the domain's UUID; None if its backups do not say it.
    """

    group: str
    domain: str
    target: str
    max_age_s: float | None
    is_known: bool | None = None
    backups: tuple[BackupFacts, ...] = ()
    broken: tuple[BrokenFacts, ...] = ()
    jump: JumpFacts | None = None
    contradictions: tuple[Contradicted, ...] = ()
    head: str | None = None
    word: str = ""
    hosts: frozenset[str] = frozenset()
    host: str | None = None
    uuid: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells the guest from all others: its group, and a text that means it."""
        return self.group, self.word or self.domain


class RepositoryFacts(Struct, frozen=True):
    """The chunks of a target's repository, and the data of the backups in it."""

    data_bytes: int
    chunk_bytes: int
    stored_bytes: int


class TargetFacts(Struct, frozen=True):
    """A target.

    Attributes:
        groups: the groups that use it.
        error: why it cannot be read; then nothing else is known.
        used_bytes: of its file system.
        free_bytes: the bytes that an ordinary user can still write there.
        expired_bytes: what removing the expired backups would free; None if that is not known.
        history: its runs, oldest first.
        problems: the parts of its history or repository that cannot be read.
        unclaimed: domains that have backups there, and that are in no group.
        recovery_lack: why all its backups may be lost with a host, if it is encrypted and has no
            recovery key.
    """

    path: str
    groups: tuple[str, ...]
    error: str | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    repository: RepositoryFacts | None = None
    expired_bytes: int | None = None
    history: tuple[RunRecord, ...] = ()
    problems: tuple[str, ...] = ()
    unclaimed: tuple[str, ...] = ()
    recovery_lack: str | None = None


class Leftover(Struct, frozen=True):
    """A leftover of a killed backup: one line, and the command that removes it."""

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
    """The future of one backup by retention, of the guest that represents its group.

    Attributes:
        reasons: why it stays.
        goes: the day on which ``clean`` will remove it, as ``date.toordinal``; None if not soon.
    """

    name: str
    date: int
    reasons: tuple[str, ...]
    goes: int | None = None


class Calendar(Struct, frozen=True):
    """The future of the backups of one guest of a group by retention, oldest first."""

    group: str
    domain: str
    backups: tuple[KeptBackup, ...]


class Facts(Struct, frozen=True):
    """All the facts.

    Attributes:
        at: the moment, in seconds since the epoch.
        of_target: whether a target alone was read, without a configuration and libvirt; then
            ``config`` is its path, and nothing is known of guests without a backup.
        program: the words that start the program with this configuration.
        where: the words that follow each command: the target, if it was read alone.
        groups: of the configuration, each with whether it has ``autostart``.
        unclaimed: domains that libvirt knows and that are in no group.
        hypervisor_error: why libvirt did not answer.
    """

    at: float
    host: str
    version: str
    config: str
    of_target: bool = False
    program: tuple[str, ...] = ("virtbackup",)
    where: tuple[str, ...] = ()
    groups: tuple[tuple[str, bool], ...] = ()
    guests: tuple[GuestFacts, ...] = ()
    targets: tuple[TargetFacts, ...] = ()
    unclaimed: tuple[str, ...] = ()
    hypervisor_error: str | None = None
    running: tuple[RunningBackup, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    calendars: tuple[Calendar, ...] = ()
