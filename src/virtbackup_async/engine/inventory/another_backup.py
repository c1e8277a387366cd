"""The backup to restore in place of one that turns out to be damaged.

It is the newest backup that ``verify`` found intact, or else the newest that was never verified. A
backup that is known to be damaged is never proposed. Only definitions are read.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.catalog.store import Catalog
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.inventory.command_lines import command_line, exact_name
from virtbackup_async.engine.inventory.dates import pasteable, time_of
from virtbackup_async.engine.inventory.guests import Guests
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import (
    CorruptError,
    DefinitionError,
    ForeignRepositoryError,
    NewerVersionError,
    VirtBackupError,
)
from virtbackup_async.model.backup import BackupState


class Use(Struct, frozen=True):
    """The use of a backup; ``words`` follow its name on the command line."""

    command: str = "restore"
    words: tuple[str, ...] = ("DIRECTORY",)


RESTORE = Use()


def advise(
    config: Config, group: str, word: str, others: Sequence[FoundBackup], use: Use = RESTORE
) -> str:
    """Return a sentence that names the best of a domain's other backups, and the command for it.

    Args:
        config: the configuration.
        group: the group whose target has them.
        word: a text that means only the domain in that target.
        others: the complete backups, without the damaged one.
        use: the use that the backup was wanted for.
    """
    by_date = sorted(others, key=lambda found: found.definition.date)
    states = (BackupState.GOOD, BackupState.UNVERIFIED)
    newest = {
        state: [found for found in by_date if found.definition.backup_state == state][-1:]
        for state in states
    }
    for state, how in zip(states, ("good", "unverified"), strict=True):
        for found in newest[state]:
            made = pasteable(time_of(found.definition.date))
            name = exact_name(config, group, word, found.definition.name)
            command = command_line(config, use.command, name, *use.words)
            return f"Run `{command}` to take the newest {how} one, of {made}."
    return f"No other backup of {word} is good or unverified."


@asynccontextmanager
async def naming_another(runtime: Runtime, found: FoundBackup, use: Use) -> AsyncGenerator[None]:
    """Add the backup to use instead to an error, if this one is damaged.

    Raises:
        CorruptError: the same as from the block, with the advice added to its hint.
    """
    try:
        yield
    except CorruptError as error:
        if _is_of_the_data(error):
            advice = await _advice(runtime, found, use)
            error.hint = " ".join(filter(None, (error.hint, advice))) or None
        raise


def _is_of_the_data(error: CorruptError) -> bool:
    """Return whether another backup might be in a better state."""
    if isinstance(error, NewerVersionError | ForeignRepositoryError):
        return False
    return not (isinstance(error, DefinitionError) and error.hint)


async def _advice(runtime: Runtime, found: FoundBackup, use: Use) -> str | None:
    target = found.path.target
    groups = [group.name for group in runtime.config.groups.values() if group.target == target]
    if not groups:
        return None
    try:
        guests = Guests(await Catalog(target).scan())
    except VirtBackupError:
        return None  # the first error counts
    guest = guests.find(found.path)
    if guest is None:  # it is no complete backup any more
        return advise(runtime.config, groups[0], found.definition.domain_name, (), use)
    others = [other for other in guest.backups if other.path != found.path]
    return advise(runtime.config, groups[0], guests.word(guest), others, use)
