"""The report of ``backup``, ``restore`` and ``export``: what became of each domain."""

from msgspec import Struct, field

from virtbackup_async import events


class RunReport(Struct):
    """What a run made, and what failed, each in the order of the events.

    Attributes:
        disks: by the group and the backup's name, how many disks it has.
        spaces: the free space of the targets, at the end.
        lost_bytes: what was read for backups that failed.
    """

    done: list[events.BackupDone] = field(default_factory=list)
    failed: list[events.BackupFailed] = field(default_factory=list)
    skipped: list[events.DiskSkipped] = field(default_factory=list)
    restored: list[events.RestoreDone] = field(default_factory=list)
    defined: list[events.DomainDefined] = field(default_factory=list)
    exported: list[events.DiskExported] = field(default_factory=list)
    disks: dict[tuple[str, str], int] = field(default_factory=dict)
    spaces: list[events.TargetSpace] = field(default_factory=list)
    lost_bytes: int = 0
    _progress: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, event: events.Event) -> None:
        """Collect an event of the result; ignore any other."""
        match event:
            case events.BackupStarted():
                self.disks[event.group, event.backup] = len(event.disks)
            case events.DiskProgress():
                self._progress.setdefault(event.domain, {})[event.disk] = event.done_bytes
            case events.BackupDone():
                self._progress.pop(event.domain, None)
                self.done.append(event)
            case events.BackupFailed():
                self.lost_bytes += sum(self._progress.pop(event.domain, {}).values())
                self.failed.append(event)
            case events.TargetSpace():
                self.spaces.append(event)
            case _:
                self._add_other(event)

    def _add_other(self, event: events.Event) -> None:
        match event:
            case events.DiskSkipped():
                self.skipped.append(event)
            case events.RestoreDone():
                self.restored.append(event)
            case events.DomainDefined():
                self.defined.append(event)
            case events.DiskExported():
                self.exported.append(event)
            case _:
                pass

    @property
    def groups(self) -> set[str]:
        """The groups of which a backup was made, or tried."""
        return {done.group for done in self.done} | {failed.group for failed in self.failed}

    def name(self, group: str | None, domain: str) -> str:
        """Return what to call a domain: two groups may have one of the same name."""
        return f"{group}/{domain}" if group and len(self.groups) > 1 else domain

    @property
    def data_bytes(self) -> int:
        """The data of all backups that were made."""
        return sum(done.data_bytes for done in self.done)

    @property
    def read_bytes(self) -> int:
        """What was read in all, also for backups that failed."""
        return sum(done.read_bytes for done in self.done) + self.lost_bytes

    def stored_in(self, target: str) -> int:
        """What the new backups added to a target."""
        below = f"{target.rstrip('/')}/"
        return sum(d.stored_bytes for d in self.done if d.definition.startswith(below))

    @property
    def stored_bytes(self) -> int:
        """What these backups added to their targets."""
        return sum(done.stored_bytes for done in self.done)

    @property
    def cancelled(self) -> int:
        """How many of the failed backups were cancelled."""
        return sum(failed.cancelled for failed in self.failed)
