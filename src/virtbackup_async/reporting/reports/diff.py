"""The report of ``diff``."""

from msgspec import Struct, field

from virtbackup_async import events


class DiffReport(Struct):
    """How much of each disk changed."""

    disks: list[events.DiskCompared] = field(default_factory=list)

    def add(self, event: events.Event) -> None:
        """Collect a disk; ignore any other event."""
        if isinstance(event, events.DiskCompared):
            self.disks.append(event)

    @property
    def changed_bytes(self) -> int:
        """What changed of all disks that can be compared."""
        return sum(disk.changed_bytes or 0 for disk in self.disks)
