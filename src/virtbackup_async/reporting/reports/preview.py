"""The report of ``backup --dry-run``."""

from msgspec import Struct, field

from virtbackup_async import events


class PreviewReport(Struct):
    """How the disks would be read, whether all fits, and which domains could not be backed up."""

    disks: list[events.DiskPlanned] = field(default_factory=list)
    targets: list[events.TargetPlanned] = field(default_factory=list)
    failed: list[events.BackupFailed] = field(default_factory=list)

    def add(self, event: events.Event) -> None:
        """Collect an event of the plan; ignore any other."""
        match event:
            case events.DiskPlanned():
                self.disks.append(event)
            case events.TargetPlanned():
                self.targets.append(event)
            case events.BackupFailed():
                self.failed.append(event)
            case _:
                pass
