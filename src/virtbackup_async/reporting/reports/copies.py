"""The report of ``copy``, and of the copies that follow backups."""

from msgspec import Struct, field

from virtbackup_async import events


class CopyReport(Struct):
    """What became of each backup, in the order of the events."""

    done: list[events.CopyDone] = field(default_factory=list)
    skipped: list[events.CopySkipped] = field(default_factory=list)
    failed: list[events.CopyFailed] = field(default_factory=list)
    planned: list[events.CopyPlanned] = field(default_factory=list)

    def add(self, event: events.Event) -> None:
        """Collect an event of the result; ignore any other."""
        match event:
            case events.CopyDone():
                self.done.append(event)
            case events.CopySkipped():
                self.skipped.append(event)
            case events.CopyFailed():
                self.failed.append(event)
            case events.CopyPlanned():
                self.planned.append(event)
            case _:
                pass

    @property
    def is_empty(self) -> bool:
        """Whether nothing was copied, skipped or refused."""
        return not (self.done or self.skipped or self.failed or self.planned)
