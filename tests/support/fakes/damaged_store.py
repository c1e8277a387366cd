"""Two backups in a repository on any storage, damage to its files, and what commands say then."""

from dataclasses import replace

from msgspec.structs import replace as without_key

from fakes.any_place import AnyPlace
from fakes.hypervisor import DescribedDomain
from fakes.site import Site
from fakes.small_repository import content
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.inventory.chosen_backup import FindRequest, find_backup_to_read
from virtbackup_async.engine.inventory.listing import ListRequest, run_list
from virtbackup_async.engine.restore.to_directory import RestoreRequest, restore_backup
from virtbackup_async.engine.verify.filters import VerifyRequest
from virtbackup_async.engine.verify.repair import RepairRequest, run_repair
from virtbackup_async.engine.verify.verify import run_verify
from virtbackup_async.errors import VirtBackupError
from virtbackup_async.events import BackupDone, RepositoryDamaged
from virtbackup_async.repository import Kind, check_without_key
from virtbackup_async.repository.storage import opened
from virtbackup_async.repository.storage.layout import KEYS, REPOSITORY_FILE
from virtbackup_async.repository.storage.objects import connecting

IMAGES = {"old": content([1, 2, 0, 3]), "new": content([2, 4, 0, 5])}
HOWS = ("flip", "cut", "empty", "remove")
FILES = ("repository", "segment", "pack", "map", "definition", "slot")
_MOST_BYTES = 1 << 24


class StoreSite(Site):
    """A host whose target is anywhere.

    Attributes:
        place: the target.
    """

    def __init__(self, place: AnyPlace) -> None:
        root = place.directory / "host"
        root.mkdir(exist_ok=True)
        self.place = place
        self.image = root / "vda.raw"
        super().__init__(root, DescribedDomain({"vda": self.image}, active=False))
        self.group |= {"packager": "repository"}

    def configure(self, **groups: dict) -> Config:
        config = super().configure(**groups)
        moved = {
            name: replace(group, target=self.place.location)
            for name, group in config.groups.items()
        }
        return replace(config, groups=moved)

    async def store_two(self) -> dict[str, str]:
        """Make both backups; return their names by those of ``IMAGES``."""
        names = {}
        for name, data in IMAGES.items():
            self.image.write_bytes(data)
            done = await self.back_up()
            assert isinstance(done, BackupDone), done
            names[name] = done.backup
        return names


class DamagedStore:
    """A copy of such a target, one of whose files is damaged."""

    def __init__(self, place: AnyPlace, names: dict[str, str]) -> None:
        self._site = StoreSite(place)
        self._place = place
        self._names = names

    def damage(self, file: str, how: str) -> None:
        """Damage a file of the older backup, or one that both need."""
        raw, name = self._place.raw, self._stored_name(file)
        data = raw.read(name, _MOST_BYTES) or b""
        assert data, name
        middle = len(data) // 2
        if how == "remove":
            raw.remove(name)
        elif how == "flip":
            raw.replace(name, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        else:
            raw.replace(name, data[:middle] if how == "cut" else b"")

    def _stored_name(self, file: str) -> str:
        storage, raw = self._place.repository.storage, self._place.raw
        sealed = getattr(storage, "_sealed", lambda clear: clear)
        old = self._names["old"]
        match file:
            case "repository":
                return REPOSITORY_FILE
            case "segment":
                return self._oldest(self._place.segments())
            case "pack":
                return self._oldest(self._place.packs())
            case "slot":
                (slot,) = raw.names(KEYS, {Kind.FILE})
                return f"{KEYS}/{slot}"
            case _:
                pass
        (directory,) = (name for name in storage.names("", {Kind.DIRECTORY}) if name[0] != ".")
        last = f"{old}.json" if file == "definition" else f"{old}_vda.raw.map"
        return str(sealed(f"{directory}/{last}"))

    def _oldest(self, names: list[str]) -> str:
        """The file of the older backup, whose image has more chunks of its own."""
        return max(names, key=lambda name: self._place.raw.status(name).size_bytes)

    async def says(self) -> dict[str, str]:
        """What each command says, in a word or two, in a process that has opened nothing before."""
        opened._kept.clear()
        connecting._opened.clear()
        found = {
            "list": await self._listed(),
            "verify": await self._verified(),
            "restore": await self._restored(),
        }
        if self._place.location.is_encrypted:
            found["without key"] = self._checked_without_key()
        found["repair"] = await self._repaired()
        found["verify then"] = await self._verified()
        found["restore then"] = await self._restored()
        return found

    async def _listed(self) -> str:
        try:
            listing = await run_list(self._site.runtime(), ListRequest())
        except VirtBackupError as error:
            return type(error).__name__
        broken = len(listing.broken)
        return f"{len(listing.backups)}" + (f", {broken} broken" if broken else "")

    async def _verified(self) -> str:
        runtime = self._site.runtime()
        try:
            run = await run_verify(runtime, VerifyRequest(read_data="all"))
        except VirtBackupError as error:
            return type(error).__name__
        good = self._words([one.backup for one in run.good])
        is_damaged = bool(self._site.of(RepositoryDamaged))
        return f"good: {good}" + (", repository damaged" if is_damaged else "")

    async def _restored(self) -> str:
        """Which backups come back as they were; what comes back must never differ."""
        whole = []
        for name, backup in self._names.items():
            directory = self._place.directory / "restored"
            try:
                request = FindRequest("all", "fake", backup)
                found = await find_backup_to_read(self._site.runtime(), request)
                restore = RestoreRequest(found.definition, found.path.parent, directory)
                await restore_backup(self._site.runtime(), restore)
            except VirtBackupError:
                assert not list(directory.glob("*.raw"))
                continue
            (image,) = directory.glob("*.raw")
            assert image.read_bytes() == IMAGES[name]
            whole.append(backup)
            for path in directory.iterdir():
                path.unlink()
        return self._words(whole)

    async def _repaired(self) -> str:
        try:
            run = await run_repair(self._site.runtime(), RepairRequest())
        except VirtBackupError as error:
            return type(error).__name__
        return f"good: {self._words([one.backup for one in run.good])}"

    def _checked_without_key(self) -> str:
        location = without_key(self._place.location, key_file=None)
        try:
            found = list(check_without_key(location, lambda: None))
        except VirtBackupError as error:
            return type(error).__name__
        bad = sum(each.error is not None for each in found)
        return f"{bad} bad" if bad else "good"

    def _words(self, backups: list[str]) -> str:
        found = [name for name, backup in self._names.items() if backup in backups]
        return " and ".join(found) or "none"
