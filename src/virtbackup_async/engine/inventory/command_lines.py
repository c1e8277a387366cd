"""The commands in messages and in the output of ``show``, ready for a shell. Pure."""

import shlex

from virtbackup_async.config.loading import search_paths
from virtbackup_async.config.schema import Config


def exact_name(config: Config, group: str, domain: str, backup: str) -> str:
    """Return a name that means only this backup, whatever else the targets hold."""
    targets = {each.target for each in config.groups.values() if each.target}
    name = f"{domain}@{backup}"
    return name if len(targets) == 1 else f"{group}/{name}"


def command_line(config: Config, command: str, *words: str) -> str:
    """Return a command line of this program that reads the same configuration or target."""
    where: tuple[str, ...] = ()
    if config.of_target:
        where = ("--target", str(config.path))
    elif config.path not in search_paths():
        return shlex.join(("virtbackup", "-c", str(config.path), command, *words))
    return shlex.join(("virtbackup", command, *where, *words))
