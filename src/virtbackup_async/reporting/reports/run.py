"""The report of ``backup``, ``restore`` and ``export``: what became of each domain."""

from msgspec import Struct, field

from virtbackup_async import events


class RunReport(Struct):
    """What a run made, and what failed, each in the order of the events.

    Attributes:
        disks: by the backup's name, how many disks it has.
    """

    done: list[events.BackupDone] = field(default_factory=list)
    failed: list[events.BackupFailed] = field(default_factory=list)
    skipped: list[events.DiskSkipped] = field(default_factory=list)
    restored: list[events.RestoreDone] = field(default_factory=list)
    defined: list[events.DomainDefined] = field(default_factory=list)
    exported: list[events.DiskExported] = field(default_factory=list)
    disks: dict[str, int] = field(default_factory=dict)

    def add(self, event: events.Event) -> None:
        """Collect an event of the result; ignore any other."""
        match event:
            case events.BackupStarted():
                self.disks[event.backup] = len(event.disks)
            case events.BackupDone():
                self.done.append(event)
            case events.BackupFailed():
                self.failed.append(event)
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
    def data_bytes(self) -> int:
        """The data of all backups that were made."""
        return sum(done.data_bytes for done in self.done)

    @property
    def stored_bytes(self) -> int:
        """What these backups added to their targets."""
        return sum(done.stored_bytes for done in self.done)

    @property
    def cancelled(self) -> int:
        """How many of the failed backups were cancelled."""
        return sum(failed.cancelled for failed in self.failed)
