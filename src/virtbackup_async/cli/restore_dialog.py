"""The dialog of ``virtbackup restore`` without arguments: which guest, which backup, where to.

At 3 a.m. nobody remembers the grammar; so the last line shows what could have been typed.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from virtbackup_async.api.virtbackup import VirtBackup, open_virtbackup
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.cli import questions
from virtbackup_async.config.schema import Config
from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.engine.inventory.command_lines import command_line
from virtbackup_async.errors import ConfigError, NotFoundError
from virtbackup_async.events import ListedBackup
from virtbackup_async.reporting.text import count

IN_PLACE = "in-place"
_LATEST = "latest"
_SHOWN = 15


class Picked(Struct, frozen=True):
    """What was chosen: the backup as ``GUEST@BACKUP``, and the directory, or None for in place."""

    name: str
    target_dir: Path | None

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments that mean the same."""
        return (self.name,) if self.target_dir is None else (self.name, str(self.target_dir))


async def ask_restore(load: Callable[[], Config], *, in_place: bool) -> Picked:
    """Ask what to restore, and where to.

    Args:
        load: reads the configuration; may raise.
        in_place: the place is known already.

    Raises:
        ConfigError: no answer came.
        NotFoundError: there is no backup.
        StorageError: a target cannot be read.
    """
    config = load()
    async with open_virtbackup(config) as vb:
        guests = _by_guest((await vb.list()).backups)
        if not guests:
            raise NotFoundError("there is no backup to restore")
        guest = await _ask_guest(guests)
        found = await _ask_backup(vb, guest, guests[guest])
    name = f"{guest}@{found.definition.name}"
    picked = Picked(name, None if in_place else await _ask_place(found))
    flag = ["--in-place"] if picked.target_dir is None else []
    questions.say(f"This is: {command_line(config, 'restore', *picked.words, *flag)}")
    return picked


def _by_guest(backups: tuple[ListedBackup, ...]) -> dict[str, list[ListedBackup]]:
    """Return the backups of each guest, the newest first; the group is named where several are."""
    groups: dict[str, set[str]] = {}
    for backup in backups:
        groups.setdefault(backup.domain, set()).add(backup.group)
    found: dict[str, list[ListedBackup]] = {}
    for backup in backups:
        several = len(groups[backup.domain]) > 1
        name = f"{backup.group}/{backup.domain}" if several else backup.domain
        found.setdefault(name, []).insert(0, backup)
    return found


async def _ask_guest(guests: Mapping[str, list[ListedBackup]]) -> str:
    for name, backups in guests.items():
        newest = backups[0]
        made = f"newest of {_local(newest)}, {newest.state}"
        questions.say(f"  {name}: {count(len(backups), 'backup')}, {made}")

    def parse(answer: str) -> str:
        if answer not in guests:
            raise ValueError(f"there is no backup of {answer}{did_you_mean(answer, [*guests])}")
        return answer

    only = next(iter(guests)) if len(guests) == 1 else None
    return await questions.ask_for("Which guest", only, parse)


async def _ask_backup(vb: VirtBackup, guest: str, backups: list[ListedBackup]) -> FoundBackup:
    for backup in backups[:_SHOWN]:
        note = f", {backup.note}" if backup.note else ""
        questions.say(f"  {_local(backup)}  {backup.state}{note}")
    if len(backups) > _SHOWN:
        questions.say(f"  and {len(backups) - _SHOWN} older ones")
    while True:
        date = await questions.ask("Which backup: a date, or its start", _LATEST)
        try:
            return await vb.find(f"{guest}@{date}")
        except (ConfigError, NotFoundError) as error:
            questions.say(f"  {error}")


async def _ask_place(found: FoundBackup) -> Path | None:
    directory = Path.cwd() / found.definition.name

    def parse(answer: str) -> Path | None:
        return None if answer == IN_PLACE else Path(answer)

    question = f"Where to: a new directory, or {IN_PLACE} of the guest's own disks"
    return await questions.ask_for(question, str(directory), parse)


def _local(backup: ListedBackup) -> str:
    return f"{datetime.fromisoformat(backup.date).astimezone():%Y-%m-%d %H:%M:%S}"
