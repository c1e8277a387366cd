"""The report of ``backup``, ``restore`` and ``export``: what became of each domain."""

from msgspec import Struct, field

from virtbackup_async.events import (
    BackupDone,
    BackupFailed,
    BackupStarted,
    DiskExported,
    DiskSkipped,
    DomainDefined,
    Event,
    RestoreDone,
)


class RunReport(Struct):
    """What a run made, and what failed, each in the order of the events.

    Attributes:
        disks: by the backup's name, how many disks it has.
    """

    done: list[BackupDone] = field(default_factory=list)
    failed: list[BackupFailed] = field(default_factory=list)
    skipped: list[DiskSkipped] = field(default_factory=list)
    restored: list[RestoreDone] = field(default_factory=list)
    defined: list[DomainDefined] = field(default_factory=list)
    exported: list[DiskExported] = field(default_factory=list)
    disks: dict[str, int] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Collect an event of the result; ignore any other."""
        match event:
            case BackupStarted():
                self.disks[event.backup] = len(event.disks)
            case BackupDone():
                self.done.append(event)
            case BackupFailed():
                self.failed.append(event)
            case DiskSkipped():
                self.skipped.append(event)
            case RestoreDone():
                self.restored.append(event)
            case DomainDefined():
                self.defined.append(event)
            case DiskExported():
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
