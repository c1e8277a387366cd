"""Which earlier backup of a disk the next one goes on from, without trust in an image's history.

::

    maker      the backup at whose moment checkpoint C was made
    image      differs from the maker only where its bitmap C is dirty: QEMU writes both
    later      a backup of the domain shut off: no new checkpoint, so it names C as well. It differs
               from the maker only in what its reading records as `changed`

An image may be put back to any state since C, with the bitmap as it was then: so the bitmap tells
how it differs from the maker, and nothing of later backups. The maker is the base as long as it is
there. Without it, a later backup is one, and both its changes and those of the bitmap are read.

Called by ``tracking.py`` and ``checkpoints.py``. The definitions are trusted, as in a restore.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from virtbackup_async.catalog.store import Catalog
from virtbackup_async.model.backup import Definition, DiskRecord
from virtbackup_async.model.domain import DomainInfo
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.tracking import Base, Reading, is_checkpoint_of_ours


class CheckpointedBackup(Struct, frozen=True):
    """A backup of a disk that names a checkpoint."""

    definition: Definition
    record: DiskRecord
    reading: Reading
    checkpoint: str

    @property
    def made_it(self) -> bool:
        """Whether the checkpoint was made at this backup's moment: a domain shut off gets none."""
        if self.reading.checkpoint_of is None:
            return self.definition.state != "shutoff"
        return self.reading.checkpoint_of == self.definition.name

    @property
    def is_good(self) -> bool:
        """Whether ``verify`` has found nothing wrong with it."""
        verified = self.definition.verified
        return verified is None or verified.ok

    def base(self) -> Base:
        """Return it as what the next backup goes on from."""
        return Base(
            self.definition.name,
            self.record.image.file,
            self.checkpoint,
            self.reading.full_date,
            self.reading.checkpoint_of or self.definition.name,
            tuple(Extent(start, length) for start, length in self.reading.changed or ()),
        )


class Candidates(Struct, frozen=True):
    """All backups of a disk that name the checkpoint that the newest of them names, by date.

    ``others`` are those of the disk that name another one.
    """

    with_checkpoint: tuple[CheckpointedBackup, ...]
    others: tuple[CheckpointedBackup, ...]

    @property
    def newest(self) -> CheckpointedBackup:
        """The newest one."""
        return self.with_checkpoint[-1]

    @property
    def checkpoint(self) -> str:
        """The checkpoint that they name."""
        return self.newest.checkpoint

    def choose(self) -> CheckpointedBackup | str:
        """Return the one to go on from; without one, why the disk has to be read in full."""
        if any(one.reading.audit_failed and not one.made_it for one in self.with_checkpoint):
            return f"an audit found changes that the bitmap of {self.checkpoint} did not tell"
        usable = [one for one in self.with_checkpoint if one.made_it or _tells_changes(one)]
        if not usable:
            return f"the backup of checkpoint {self.checkpoint} is not there any more"
        good = [one for one in usable if one.is_good]
        if not good:
            return f"the backup to go on from, {usable[-1].definition.name}, is damaged"
        # Read in full although there was a bitmap: the maker was of no use, by size or damage.
        anew = good[-1].reading.base is None
        chosen = good[-1] if anew else next((one for one in good if one.made_it), good[-1])
        if self._may_lack_changes(chosen):
            return "earlier versions went on from a backup of the domain shut off"
        return chosen

    def _may_lack_changes(self, chosen: CheckpointedBackup) -> bool:
        """Tell whether it was gone on to by an earlier version from one that did not make C.

        That was wrong where the image had been put back meanwhile. One of ours, of today, went on
        from none such.
        """
        return chosen.reading.checkpoint_of is None and any(
            one.reading.checkpoint_of is None
            and one.reading.full_date == chosen.reading.full_date
            and one.definition.date <= chosen.definition.date
            and _is_of_domain_off(one.reading.base)
            for one in (*self.others, *self.with_checkpoint)
        )


async def find_candidates(catalog: Catalog, info: DomainInfo) -> Mapping[str, Candidates]:
    """Return by dev what the next backup of a domain may go on from; devs without are left out.

    Raises:
        StorageError: the target cannot be read.
    """
    formers: dict[str, list[CheckpointedBackup]] = {}
    complete = (await catalog.scan_domain(info.name)).complete
    for found in sorted(complete, key=lambda found: found.definition.date):
        if found.definition.domain_uuid == info.uuid:
            for dev, record in found.definition.records.items():
                reading = record.reading
                if reading is None or reading.checkpoint is None:
                    continue
                # libvirt is told of it anew: a target must not have an admin's own replaced.
                if is_checkpoint_of_ours(reading.checkpoint):
                    former = CheckpointedBackup(
                        found.definition, record, reading, reading.checkpoint
                    )
                    formers.setdefault(dev, []).append(former)
    return {dev: _with_newest(found) for dev, found in formers.items()}


def _with_newest(formers: Sequence[CheckpointedBackup]) -> Candidates:
    checkpoint = formers[-1].checkpoint
    return Candidates(
        tuple(one for one in formers if one.checkpoint == checkpoint),
        tuple(one for one in formers if one.checkpoint != checkpoint),
    )


def _tells_changes(former: CheckpointedBackup) -> bool:
    return former.reading.changed is not None


def _is_of_domain_off(backup: str | None) -> bool:
    """Tell by its name whether a backup, which may be gone, was one of a domain shut off."""
    return backup is not None and backup.split("_")[1:2] == ["-1"]
