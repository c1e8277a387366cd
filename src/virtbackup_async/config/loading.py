"""Finds the configuration file and turns it into a checked :class:`Config`.

``cli`` calls :func:`load_config` before the event loop starts: the file is small, and reading it
blocks. The steps: read, parse, carry old keys over (``compat``), check each section, merge the
defaults into each group, resolve ``g:`` patterns. All errors are reported together;
``config check`` takes them one by one from :func:`examine`.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import platformdirs
import yaml

from virtbackup_async.compat import config as compat
from virtbackup_async.config.patterns import PatternError, resolve
from virtbackup_async.config.problems import Problems, is_secret
from virtbackup_async.config.schema import Config, Group, HostEntry
from virtbackup_async.config.sections import (
    TOP_KEYS,
    Section,
    merge_group,
    read_group_section,
    read_operations,
    read_section,
)
from virtbackup_async.config.suggestion import did_you_mean
from virtbackup_async.config.trust import distrust
from virtbackup_async.config.yaml_file import (
    FILE_MAX_BYTES,
    WAYS_IN,
    YamlFile,
    odd_number,
    parse_yaml,
)
from virtbackup_async.errors import ConfigError
from virtbackup_async.model.storage_location import StorageLocation

FILE_NAME = "config.yml"
SYSTEM_DIRECTORY = Path("/etc/virt-backup")


def load_config(path: Path | None) -> Config:
    """Return the configuration in ``path``, or in the first file of :func:`search_paths`.

    Raises:
        ConfigError: there is none, it cannot be read, or something in it is wrong.
    """
    config, problems = examine(path or find_config())
    problems.raise_errors()
    return replace(config, warnings=tuple(map(str, problems.warnings)))


def examine(path: Path) -> tuple[Config, Problems]:
    """Return the configuration in ``path``, as far as it is understood, and its problems.

    Raises:
        ConfigError: it cannot be read, or is no YAML with keys at its top.
    """
    data, opened = _read(path)
    config, problems = examine_text(data, path)
    if _has_hooks(config) and (found := distrust(path, opened)):
        message = f"hooks are refused, and the backups behind them: {found.message}. {found.hint}"
        problems.warn((), message)
        config = replace(config, distrust=found)
    for key, secret in (("passphrase", config.passphrase), ("notify", config.notify.urls)):
        if secret and opened.st_mode & stat.S_IROTH:
            problems.warn((key,), "every user can read it: chmod o-r the file")
    return config, problems


def examine_text(data: bytes, path: Path) -> tuple[Config, Problems]:
    """Do as :func:`examine` with the content of a file, ``path`` being its name in messages."""
    file = parse_yaml(data, path)
    if not isinstance(file.value, dict):
        raise ConfigError(
            "found no keys, expected 'groups' and others", path=f"{path}:1", hint=WAYS_IN
        )
    problems = Problems(file)
    raw, changes = compat.upgrade(file.value)
    for change in changes:
        _tell(change, file, problems)
    is_virt_backups = bool(changes) or compat.has_empty_keys_of_the_example(file.value)
    config = replace(_build(raw, path, problems), is_virt_backups=is_virt_backups)
    _tell_odd_numbers(file, problems)
    return config, problems


def _has_hooks(config: Config) -> bool:
    of_groups = (group.hooks for group in config.groups.values())
    return any(hooks.commands for hooks in (config.hooks, *of_groups))


CONFIG_VARIABLE: Final = "VIRTBACKUP_CONFIG"
"""Names the configuration file in the environment, also in that of hooks; empty for none."""


def search_paths() -> tuple[Path, Path]:
    """Return where the file may be: in the user's own directory, then in the system's."""
    own = platformdirs.user_config_path("virt-backup")
    return own / FILE_NAME, SYSTEM_DIRECTORY / FILE_NAME


def _named_by_environment() -> Path | None:
    """Return the file that the environment names; None if it names none."""
    named = os.environ.get(CONFIG_VARIABLE)
    return Path(named) if named else None


def find_config() -> Path:
    """Return the file that the environment names, or the first of :func:`search_paths` that exists.

    Raises:
        ConfigError: none exists.
    """
    named = _named_by_environment()
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"{CONFIG_VARIABLE} names {named}, which is no file", hint=WAYS_IN)
        return named
    paths = search_paths()
    for path in paths:
        if path.is_file():
            return path
    raise ConfigError(
        f"no configuration file: neither {paths[0]} nor {paths[1]}",
        hint=WAYS_IN,
    )


def new_config_path() -> Path:
    """Return where a new file goes, so that it is the one that is found.

    That is the one that the environment names, or a file that is there already; else the system's
    for root, and the user's own for others.
    """
    named = _named_by_environment()
    if named is not None:
        return named
    own, system = search_paths()
    there = (path for path in (own, system) if os.path.lexists(path))
    return next(there, system if os.geteuid() == 0 else own)


def read_file(path: Path) -> bytes:
    """Return the file's content, at most one byte more than allowed.

    Raises:
        ConfigError: it cannot be read.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        with path.open("rb") as file:
            return file.read(FILE_MAX_BYTES + 1), os.fstat(file.fileno())
    except OSError as error:
        hint = WAYS_IN if isinstance(error, FileNotFoundError) else None
        raise ConfigError(f"cannot be read: {error.strerror}", path=path, hint=hint) from error


def _tell(change: compat.Change, file: YamlFile, problems: Problems) -> None:
    """Warn of old keys, with their place and what to write instead."""
    line = file.line_of((*change.section, change.old[0]))
    for key in change.instead:
        file.lines.setdefault((*change.section, key), line)
    where = (*change.section, change.old[0])
    if change.is_rename:
        problems.warn(where, f"key of an old version, rename it to {', '.join(change.instead)}")
    else:
        instead = yaml.safe_dump(change.instead, sort_keys=False).rstrip()
        problems.warn(where, f"{' and '.join(change.old)} of an old version", instead)


def _tell_odd_numbers(file: YamlFile, problems: Problems) -> None:
    """Warn of numbers that YAML reads as others: octal ones, and hours and minutes."""
    for key_path, written in file.written.items():
        value = odd_number(written)
        if value is not None and not is_secret(key_path) and not problems.has_error(key_path):
            message = f"{written} is {value} in YAML: write {value}, if you mean it"
            problems.warn(key_path, message)


def _build(raw: dict[Any, Any], path: Path, problems: Problems) -> Config:
    top = read_section(raw, TOP_KEYS, (), problems)
    top |= read_operations(top, problems)
    default = read_group_section(top.pop("default", {}), ("default",), problems)
    sections = top.pop("groups", {})
    if not sections:
        problems.warn((), f"there are no groups, so there is nothing to back up. {WAYS_IN}")
    groups = _groups(sections, default, problems)
    _check_copies(groups, problems)
    _check_encryption(groups, problems)
    if top.get("threads") == 0:
        top["threads"] = len(os.sched_getaffinity(0))
    return Config(path=path, groups=groups, **top)


def _check_copies(groups: Mapping[str, Group], problems: Problems) -> None:
    """Report each entry of ``copies`` that is neither a group nor a place."""
    for group in groups.values():
        for word in group.copies:
            is_place = "://" in word or Path(word).is_absolute()
            if word not in groups and not is_place:
                meant = did_you_mean(word, groups)
                problems.error(
                    ("groups", group.name, "copies"),
                    f"{word!r} is neither a group nor an absolute path{meant}",
                )


def _check_encryption(groups: Mapping[str, Group], problems: Problems) -> None:
    """Report groups that share a target, and do not agree on whether it is encrypted."""
    first: dict[StorageLocation, Group] = {}
    for group in groups.values():
        if group.target is not None:
            other = first.setdefault(group.target.without_keys, group)
            if other.target != group.target:
                problems.error(
                    ("groups", group.name, "encryption"),
                    f"shares the target of group {other.name}, and has other keys or none",
                )


def _groups(sections: dict[Any, Any], default: Section, problems: Problems) -> dict[str, Group]:
    groups = {}
    for name, section in sections.items():
        if not name:
            problems.error(("groups", name), "a group has no name")
        elif section is not None and not isinstance(section, dict):
            problems.wrong(("groups", name), section, "a mapping")
        else:
            read = read_group_section(section or {}, ("groups", name), problems)
            groups[name] = merge_group(name, default, read, problems)
    return {name: _resolved(group, groups, problems) for name, group in groups.items()}


def _resolved(group: Group, groups: dict[str, Group], problems: Problems) -> Group:
    patterns = {
        name: tuple(entry.pattern for entry in other.hosts) for name, other in groups.items()
    }
    entries: list[HostEntry] = []
    for entry in group.hosts:
        where = ("groups", group.name, "hosts")
        try:
            pattern = resolve(entry.pattern, patterns)
        except PatternError as error:
            problems.error(where, str(error))
            continue
        if pattern.is_lost:
            meant = did_you_mean(pattern.value, groups)
            problems.warn(where, f"{pattern.text!r} means no domain: no such group{meant}")
        entries.append(replace(entry, pattern=pattern))
    return replace(group, hosts=tuple(entries))
