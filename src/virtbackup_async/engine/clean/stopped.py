"""What ``clean`` reports of a guest whose data changed suddenly, and how an admin lets it go on."""

import shlex
from collections.abc import Iterable, Sequence

from msgspec import Struct

from virtbackup_async.catalog.amendment import amend_definition
from virtbackup_async.catalog.scanning import FoundBackup
from virtbackup_async.config.schema import Config
from virtbackup_async.engine.clean.jumps import Jump, find_jump
from virtbackup_async.engine.clean.retention import BEFORE_JUMP, RetentionDecision
from virtbackup_async.engine.inventory.chosen_backup import find_named
from virtbackup_async.engine.inventory.command_lines import exact_name, words_around
from virtbackup_async.engine.runtime import Runtime
from virtbackup_async.errors import ConfigError, DefinitionError, UnusualChangeError
from virtbackup_async.events import ChangeAccepted, CleanStopped

ACCEPT_OPTION = "--accept"


class GroupJump(Struct, frozen=True):
    """A jump of a guest of a group, and the command that accepts it."""

    jump: Jump
    command: tuple[str, ...]
    error: UnusualChangeError


def jump_of(config: Config, group: str, backups: Iterable[FoundBackup]) -> GroupJump | None:
    """Return the jump among the backups of one domain in one target; None if there is none."""
    jump = find_jump(backups)
    return None if jump is None else _of_group(config, group, jump)


def _of_group(config: Config, group: str, jump: Jump) -> GroupJump:
    definition = jump.found.definition
    name = exact_name(config, group, definition.domain_name, definition.name)
    program, where = words_around(config)
    command = (*program, "clean", *where, f"{ACCEPT_OPTION}={name}")
    error = UnusualChangeError(
        f"backup {definition.name}: {jump.reason}",
        domain=definition.domain_name,
        hint=f"Look into the guest. If all is well, run '{shlex.join(command)}'.",
    )
    return GroupJump(jump, command, error)


def stop_of(
    config: Config, group: str, decisions: Sequence[RetentionDecision]
) -> CleanStopped | None:
    """Return the event for a domain of a group that has a jump; ``decisions`` are the domain's."""
    jump = next((decision.jump for decision in decisions if decision.jump is not None), None)
    if jump is None:
        return None
    definition, error = jump.found.definition, _of_group(config, group, jump).error
    return CleanStopped(
        group=group,
        domain=definition.domain_name,
        backup=definition.name,
        reason=jump.reason,
        kept=sum(decision.reasons == (BEFORE_JUMP,) for decision in decisions),
        advice=error.hint or "",
        error_code=error.code,
        exit_code=error.exit_code,
        uuid=definition.domain_uuid,
    )


async def accept_changes(runtime: Runtime, group: str | None, names: Iterable[str]) -> None:
    """Write into the definitions of backups that their sudden change is no reason for alarm.

    Raises:
        NotFoundError: there is no such backup.
        ConfigError: a name has no date, or can mean several backups.
        DefinitionError: a backup is broken.
        StorageError: a definition cannot be written.
    """
    found = [(await find_named(runtime, group, name), name) for name in dict.fromkeys(names)]
    for named, name in found:
        if not named.has_date:
            hint = f"Give its date: {shlex.quote(f'{name}@latest')}."
            raise ConfigError(f"{name}: which of its backups?", hint=hint)
        if named.found is None:
            raise DefinitionError("it is no backup as it is", path=named.path)
    for named, _ in found:
        await amend_definition(named.path, {"accepted": int(runtime.now().timestamp())})
        uuid = named.found.definition.domain_uuid if named.found else None
        accepted = ChangeAccepted(named.group, named.domain, named.name, str(named.path), uuid)
        runtime.emit(accepted)
