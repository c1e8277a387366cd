"""The report of ``verify`` and ``repair``: which backups are good, and which bytes are lost."""

from msgspec import Struct, field

from virtbackup_async import events


class VerifyReport(Struct):
    """The results, each in the order of the events.

    Attributes:
        done: backups without damage, as far as they were read.
        disks: the lost bytes, by image.
    """

    done: list[events.VerifyDone] = field(default_factory=list)
    failed: list[events.VerifyFailed] = field(default_factory=list)
    disks: list[events.DiskDamaged] = field(default_factory=list)
    repositories: list[
        events.RepositoryDamaged | events.RepositoryChecked | events.RepositoryRepaired
    ] = field(default_factory=list)

    def add(self, event: events.Event) -> None:
        """Collect an event of the result; ignore any other."""
        match event:
            case events.VerifyDone():
                self.done.append(event)
            case events.VerifyFailed():
                self.failed.append(event)
            case events.DiskDamaged():
                self.disks.append(event)
            case (
                events.RepositoryDamaged()
                | events.RepositoryChecked()
                | events.RepositoryRepaired()
            ):
                self.repositories.append(event)
            case _:
                pass

    @property
    def quick(self) -> int:
        """How many backups are complete, but were not read, or not completely."""
        return sum(event.quick for event in self.done)

    @property
    def partly(self) -> int:
        """How many of these are in a target of which a share was read."""
        return sum(event.quick and event.partly for event in self.done)

    @property
    def without_digest(self) -> int:
        """How many backups were read, and have no digest to compare with."""
        return sum(not event.digests for event in self.done) - self.quick

    @property
    def good(self) -> int:
        """How many backups were read, and match their digests."""
        return len(self.done) - self.without_digest - self.quick

    @property
    def lacking(self) -> int:
        """How many backups without damage lack disks or state of their domain."""
        return sum(bool(event.lacks) for event in self.done)
