"""The commands in messages and in the output of ``show``, ready for a shell. Pure."""

import shlex

from virtbackup_async.config.loading import search_paths
from virtbackup_async.config.schema import Config


def exact_name(config: Config, group: str, word: str, backup: str) -> str:
    """Return a name that means only this backup, whatever else the targets hold.

    Args:
        config: the configuration.
        group: the group whose target has it.
        word: a text that means only its guest there.
        backup: the backup's own name.
    """
    targets = {each.target for each in config.groups.values() if each.target}
    name = f"{word}@{backup}"
    return name if len(targets) == 1 else f"{group}/{name}"


def command_line(config: Config, command: str, *words: str) -> str:
    """Return a command line of this program that reads the same configuration or target."""
    program, where = words_around(config)
    return shlex.join((*program, command, *where, *words))


def words_around(config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the words before each command, and those after it, that make it read the same."""
    if config.of_target:
        return ("virtbackup",), ("--target", config.where)
    named = () if config.path in search_paths() else ("-c", str(config.path))
    return ("virtbackup", *named), ()
