"""A host whose target is no directory of this machine that shows its files."""

from dataclasses import replace

from fakes.hypervisor import DescribedDomain
from fakes.memory_storage import MemoryStorage
from fakes.site import Site
from object_stores import memory_object_storage, new_storage
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.engine.inventory.chosen_backup import FindRequest, find_backup_to_read
from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup
from virtbackup_async.events import BackupDone
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository import Kind, make_repository
from virtbackup_async.repository.storage.repository_file import STORAGES

IMAGE = b"\0" * 65536 + bytes(range(256)) * 2048
KINDS = {
    "memory": lambda _request: MemoryStorage(),
    "objects": lambda _request: memory_object_storage(),
    "seaweed": lambda request: new_storage(request.getfixturevalue("object_server")),
}


class OtherSite(Site):
    """A host whose target is in another storage; nothing of it is in a local directory.

    Attributes:
        storage: the target's.
        target_place: where the configuration says it is.
    """

    def __init__(self, root, storage):
        self.image = root / "vda.raw"
        self.image.write_bytes(IMAGE)
        super().__init__(root, DescribedDomain({"vda": self.image}), packager="repository")
        self.storage = storage
        self.target_place = StorageLocation("test", "one")

    def configure(self, **groups):
        config = super().configure(**groups)
        moved = {
            name: replace(group, target=self.target_place) for name, group in config.groups.items()
        }
        return replace(config, groups=moved)

    async def back_up(self, **group):
        ended = await super().back_up(method="snapshot", **group)
        assert isinstance(ended, BackupDone), ended
        assert self.left() == []
        return ended

    async def scan(self):
        return await Catalog(self.target_place, self.state).scan()

    @property
    def state(self):
        return self.root / "state"

    def left_on_the_host(self):
        """The files in the state directory, but for the memory of targets."""
        files = [path for path in self.state.rglob("*") if path.is_file()]
        return [path for path in files if self.state / "heads" not in path.parents]

    @property
    def place(self):
        """The directory of the domain's new backups."""
        return f"{self.domain.name}.{self.domain.uuid}"

    def names(self):
        """The names of the domain's files in the storage."""
        return self.storage.names(self.place, _ANY)


_ANY = frozenset(Kind)


def encrypted_site(tmp_path, monkeypatch):
    """A host whose target is a local directory that shows neither names nor content."""
    (tmp_path / "sealed").mkdir()
    place = StorageLocation("file", str(tmp_path / "sealed"), key_file=tmp_path / "key")
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(tmp_path / "state"))
    site = OtherSite(tmp_path, make_repository(place).storage)
    site.target_place = place
    return site


def other_site(request, root, monkeypatch):
    """A site of the kind that the parameter of a fixture names."""
    if request.param == "encrypted":
        return encrypted_site(root, monkeypatch)
    storage = KINDS[request.param](request)
    monkeypatch.setitem(STORAGES, "test", lambda _at: storage)
    monkeypatch.setenv("VIRTBACKUP_STATE_DIRECTORY", str(root / "state"))
    return OtherSite(root, storage)


async def restored(site, place, date=None):
    """The image of a backup, restored into a directory."""
    found = await find_backup_to_read(site.runtime(), FindRequest("all", "fake", date))
    await restore_backup(site.runtime(), RestoreRequest(found.definition, found.path.parent, place))
    (image,) = place.glob("*.raw")
    return image.read_bytes()
