"""The base of a disk's next backup, chosen without trust in the image's history.

::

    maker      the backup at whose moment checkpoint C was made
    image      differs from the maker only where its bitmap C is dirty: QEMU writes both
    later      a backup of the shut-off domain: it has no new checkpoint, so it names C as well. It
               differs from the maker only in the parts that its reading records as `changed`

An admin can bring back any state of an image since C, with the bitmap of that state. So the bitmap
has the image's differences from the maker, and says nothing about later backups. The maker is the
base as long as it exists. Without it, a later backup is the base, and both its changes and those of
the bitmap are read.

The definitions are trusted, as in a restore.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from virtbackup_async.catalog.store import Catalog
from virtbackup_async.model.backup import Definition, DiskRecord
from virtbackup_async.model.domain import DomainInfo
from virtbackup_async.model.extent import Extent
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.tracking import Base, Reading, is_checkpoint_of_ours


class CheckpointedBackup(Struct, frozen=True):
    """A backup of a disk that names a checkpoint; ``directory`` has its package."""

    definition: Definition
    record: DiskRecord
    reading: Reading
    checkpoint: str
    directory: str = ""

    @property
    def made_it(self) -> bool:
        """Whether the checkpoint was made at this backup's moment; never for a shut-off domain."""
        if self.reading.checkpoint_of is None:
            return self.definition.state != "shutoff"
        return self.reading.checkpoint_of == self.definition.name

    @property
    def is_good(self) -> bool:
        """Whether ``verify`` did not find it damaged."""
        verified = self.definition.verified
        return verified is None or verified.ok

    def base(self) -> Base:
        """Return it as the base of the next backup."""
        return Base(
            self.definition.name,
            self.record.image.file,
            self.checkpoint,
            self.reading.full_date,
            self.reading.checkpoint_of or self.definition.name,
            tuple(Extent(start, length) for start, length in self.reading.changed or ()),
            self.directory,
        )


class Candidates(Struct, frozen=True):
    """All backups of a disk with the checkpoint of the newest one, by date.

    ``others`` are the disk's backups with another checkpoint.
    """

    with_checkpoint: tuple[CheckpointedBackup, ...]
    others: tuple[CheckpointedBackup, ...]

    @property
    def newest(self) -> CheckpointedBackup:
        """The newest one."""
        return self.with_checkpoint[-1]

    @property
    def checkpoint(self) -> str:
        """Their checkpoint."""
        return self.newest.checkpoint

    def choose(self) -> CheckpointedBackup | str:
        """Return the base; without one, the reason for a full read."""
        if any(one.reading.audit_failed and not one.made_it for one in self.with_checkpoint):
            return f"an audit found changes that the bitmap of {self.checkpoint} did not tell"
        usable = [one for one in self.with_checkpoint if one.made_it or _tells_changes(one)]
        if not usable:
            return f"the backup of checkpoint {self.checkpoint} is not there any more"
        good = [one for one in usable if one.is_good]
        if not good:
            return f"the backup to go on from, {usable[-1].definition.name}, is damaged"
        # A full read despite a bitmap means that the maker was unfit, by its size or damage.
        anew = good[-1].reading.base is None
        chosen = good[-1] if anew else next((one for one in good if one.made_it), good[-1])
        if self._may_lack_changes(chosen):
            return "earlier versions went on from a backup of the domain shut off"
        return chosen

    def _may_lack_changes(self, chosen: CheckpointedBackup) -> bool:
        """Return whether an earlier version based it on a backup that did not make C.

        That was wrong if an admin had brought back an older image in between. This version never
        does it.
        """
        return chosen.reading.checkpoint_of is None and any(
            one.reading.checkpoint_of is None
            and one.reading.full_date == chosen.reading.full_date
            and one.definition.date <= chosen.definition.date
            and _is_of_domain_off(one.reading.base)
            for one in (*self.others, *self.with_checkpoint)
        )


async def find_candidates(catalog: Catalog, info: DomainInfo) -> Mapping[str, Candidates]:
    """Return, by dev, the possible bases of a domain's next backup; devs without any are omitted.

    Raises:
        StorageError: the target cannot be read.
    """
    formers: dict[str, list[CheckpointedBackup]] = {}
    complete = (await catalog.scan_guest(Guest(info.name, info.uuid))).complete
    for found in sorted(complete, key=lambda found: found.definition.date):
        if found.definition.domain_uuid == info.uuid:
            for dev, record in found.definition.records.items():
                reading = record.reading
                if reading is None or reading.checkpoint is None:
                    continue
                # It will be redefined: a target must not replace an admin's own checkpoint.
                if is_checkpoint_of_ours(reading.checkpoint):
                    former = CheckpointedBackup(
                        found.definition,
                        record,
                        reading,
                        reading.checkpoint,
                        found.path.parent.stored_name,
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
    """Tell from a backup's name whether it was of a shut-off domain; the backup can be gone."""
    return backup is not None and backup.split("_")[1:2] == ["-1"]
