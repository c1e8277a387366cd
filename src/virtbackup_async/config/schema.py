"""The configuration as the rest of the program sees it: checked, merged, complete.

``loading`` makes it, ``engine`` and ``cli`` read it; docs/reference/configuration.md describes each
key and is tested against the tables of ``sections``.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from virtbackup_async.config.patterns import HostPattern, any_includes
from virtbackup_async.config.trust import Distrust
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.packager import USUAL_TYPE
from virtbackup_async.model.pull import Method
from virtbackup_async.model.storage_location import StorageLocation

USUAL_MAX_AGE: Final = timedelta(hours=26)
"""Of a backup each night: a day, and two hours for a night that takes longer."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How many backups ``clean`` keeps of each period; None keeps all, 0 turns the rule off.

    ``keep_last`` counts backups whatever their period, the newest first.
    """

    hourly: int | None = 5
    daily: int | None = 5
    weekly: int | None = 5
    monthly: int | None = 5
    yearly: int | None = 5
    keep_last: int | None = 0


Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hooks:
    """Commands around a run, each a program with its arguments; None: nothing is run."""

    before: Command | None = None
    after: Command | None = None
    on_failure: Command | None = None
    timeout_s: int = 600

    @property
    def commands(self) -> tuple[Command, ...]:
        """The commands that are set."""
        named = (self.before, self.after, self.on_failure)
        return tuple(command for command in named if command is not None)


@dataclass(frozen=True, slots=True)
class HostEntry:
    """Domains of a group. No ``disks`` means all; ``quiesce`` None takes the group's."""

    pattern: HostPattern
    disks: tuple[str, ...] = ()
    quiesce: bool | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Domains that share a target, a packager and a retention policy.

    Attributes:
        target: None where neither the group nor the defaults name one: it cannot be backed up.
        autostart: backed up when no group is named.
        rate_limit: bytes a second that its images are read at, all together; None: no limit.
        copies: where each new backup is copied to: groups, whose targets are meant, or paths.
        method: how a running domain's disks are made to stand still.
        scratch: where scratch images of pull jobs go; None: beside each disk's image.
        audit_percent: how much of what did not change an incremental backup reads all the same.
        full_every: how long a disk may go without being read in full; None: for ever.
        max_age: how old a domain's newest good backup may become.
        append_only: this host may only add files to the target: `doctor` proves it, `clean` and
            `forget` are another host's business.
        protect: how long `clean` keeps whatever the target got, by the target's own clock.
        verify_read_data: how much of the data `verify` reads; None for the usual share.
        track_with_snapshots: whether changes of images with internal snapshots are tracked, which
            cannot be reverted to then.
        autostart_given: false where the key is missing, which virt-backup 0.5.6 takes for true.
    """

    name: str
    target: StorageLocation | None
    packager: Packager = field(default_factory=lambda: Packager(USUAL_TYPE))
    autostart: bool = False
    autostart_given: bool = False
    quiesce: bool = False
    method: Method = Method.SNAPSHOT
    scratch: Path | None = None
    audit_percent: float = 1.0
    full_every: timedelta | None = None
    max_age: timedelta = USUAL_MAX_AGE
    track_with_snapshots: bool = False
    retention: Retention = Retention()
    hosts: tuple[HostEntry, ...] = ()
    hooks: Hooks = Hooks()
    rate_limit: int | None = None
    copies: tuple[str, ...] = ()
    append_only: bool = False
    protect: timedelta | None = None
    verify_read_data: str | None = None

    def includes(self, domain: str) -> bool:
        """Return whether the group's hosts include ``domain``."""
        return any_includes((entry.pattern for entry in self.hosts), domain)


@dataclass(frozen=True, slots=True)
class NotifySettings:
    """Where to send notifications: Apprise URLs; on ``failure`` or ``always``."""

    urls: tuple[str, ...] = field(default=(), repr=False)
    on: str = "failure"


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """The page that is written after each run.

    Attributes:
        html: its file; None: no page is written.
        mode: the file's permission bits; None: those that it has, 0600 for a new one.
        mail: how often it is sent to those that ``notify`` names: ``never``, ``daily``, ``weekly``.
    """

    html: Path | None = None
    mode: int | None = None
    mail: str = "never"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Where all events but progress are logged; ``level`` is the lowest one logged."""

    journald: bool = False
    file: Path | None = None
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Config:
    """The complete file.

    Attributes:
        path: the file it was read from.
        threads: domains that are backed up at the same time; never 0 here.
        uri: of libvirt; None for libvirt's own default.
        parallel_disks: disks of one domain that are copied at the same time.
        buffers_mib: memory for all copies together, in MiB.
        io_priority: ``normal`` or ``idle``, of commands that are run at night.
        rate_limit: bytes a second that a backup reads images at, all together; None: no limit.
        hooks: those around the whole run; each group has its own.
        metrics_textfile: for Prometheus's node exporter; None: none is written.
        state_directory: where this host keeps what it notes for itself; None: the usual place.
        of_target: made for one target, without a file; see ``target_config``.
        warnings: what the admin should change, ready to be shown.
        is_virt_backups: it has marks of virt-backup beside the keys that both programs know.
        distrust: why the hooks must not be run; None: there are none, or they may be.
    """

    path: Path
    debug: bool = False
    threads: int = 1
    uri: str | None = None
    username: str | None = None
    passphrase: str | None = field(default=None, repr=False)
    groups: dict[str, Group] = field(default_factory=dict)
    parallel_disks: int = 2
    buffers_mib: int = 64
    io_priority: str = "normal"
    rate_limit: int | None = None
    hooks: Hooks = Hooks()
    metrics_textfile: Path | None = None
    state_directory: Path | None = None
    notify: NotifySettings = NotifySettings()
    report: ReportSettings = ReportSettings()
    log: LogSettings = LogSettings()
    of_target: bool = False
    warnings: tuple[str, ...] = ()
    is_virt_backups: bool = field(default=False, compare=False)
    distrust: Distrust | None = None

    @property
    def where(self) -> str:
        """The path of the file, or the target that it was made for; for messages."""
        return next(iter(self.groups)) if self.of_target else str(self.path)

    @property
    def groups_without_autostart(self) -> tuple[str, ...]:
        """The groups that do not say whether a run without names includes them."""
        return tuple(name for name, group in self.groups.items() if not group.autostart_given)
