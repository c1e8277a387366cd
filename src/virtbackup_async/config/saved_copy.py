"""The copy of the configuration that a run leaves in its targets, for the day the host is gone.

Others may read a target, so the copy holds no secret: only the keys that are listed here are in it,
and a key that is new to the program is left out until somebody adds it. Pure.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

import yaml

from virtbackup_async.config.schema import Config, Group, HostEntry
from virtbackup_async.config.sections import GROUP_KEYS, RETENTION_KEYS, TOP_KEYS
from virtbackup_async.config.target_value import TARGET_KEYS, URL_KEY
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.version import __version__

TOP_SHOWN: Final = (
    "threads", "parallel_disks", "buffers_mib", "io_priority", "rate_limit", "uri",
    "state_directory", "metrics_textfile",
)  # fmt: skip
GROUP_SHOWN: Final = (
    "target", "packager", "packager_opts", "autostart", "quiesce", "rate_limit", "method",
    "scratch", "audit_percent", "full_every", "max_age", "track_with_snapshots", *RETENTION_KEYS,
    "hosts", "copies", "encryption", "append_only", "protect",
    "verify_read_data",
)  # fmt: skip
_STRUCTURE: Final = ("default", "groups")
_HOUR_S: Final = 3600


def dumps(config: Config, host: str) -> bytes:
    """Return the copy: YAML that ``-c`` takes, with a comment on top.

    Args:
        config: as it was read; its defaults are in each group.
        host: this machine's name.
    """
    hidden = ", ".join(key for key in (*TOP_KEYS, *_group_keys_hidden()) if _is_hidden(key))
    comment = (
        f"The configuration of virtbackup {__version__} on {_plain(host)}, from",
        f"{_plain(config.path)}, as its last run read it.",
        "Without it, a target can be read all the same: virtbackup list --target DIRECTORY.",
        f"Keys that can hold secrets are left out: {hidden}.",
    )
    content: dict[str, Any] = {}
    for key in TOP_SHOWN:
        value = getattr(config, key)
        shown = _without_password(value) if key == "uri" and value else _value(value)
        if shown is not None:
            content[key] = shown
    content["groups"] = {name: dict(_group(group)) for name, group in config.groups.items()}
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=False)
    return "".join([*(f"# {line}\n" for line in comment), body]).encode()


def _group_keys_hidden() -> Iterator[str]:
    yield from (key for key in GROUP_KEYS if key not in GROUP_SHOWN and key not in TOP_KEYS)


def _is_hidden(key: str) -> bool:
    return key not in TOP_SHOWN and key not in _STRUCTURE


def _group(group: Group) -> Iterator[tuple[str, Any]]:
    for key in GROUP_SHOWN:
        value = _encryption(group) if key == "encryption" else _of_group(group, key)
        if value is not None:
            yield key, value


def _encryption(group: Group) -> Mapping[str, str] | None:
    if group.target is None or group.target.key_file is None:
        return None
    files = {"key_file": group.target.key_file, "sealed_for": group.target.sealed_for}
    return {key: str(path) for key, path in files.items() if path is not None}


def _of_group(group: Group, key: str) -> object:
    match key:
        case "packager":
            return group.packager.type
        case "packager_opts":
            return dict(group.packager.opts) or None
        case "autostart":
            return group.autostart if group.autostart_given else None
        case "hosts":
            return [_host(entry) for entry in group.hosts]
        case rule if rule in RETENTION_KEYS:
            kept = getattr(group.retention, rule)
            return "*" if kept is None else kept
        case _:
            return _value(getattr(group, key))


def _target(target: StorageLocation) -> str | Mapping[str, Any]:
    options = {key: getattr(target, key) for key in TARGET_KEYS if key != URL_KEY}
    given = {key: value for key, value in options.items() if value}
    return {URL_KEY: str(target), **given} if given else str(target)


def _host(entry: HostEntry) -> str | Mapping[str, Any]:
    if not entry.disks and entry.quiesce is None:
        return entry.pattern.text
    settings: dict[str, Any] = {"host": entry.pattern.text}
    if entry.disks:
        settings["disks"] = list(entry.disks)
    if entry.quiesce is not None:
        settings["quiesce"] = entry.quiesce
    return settings


def _value(value: object) -> object:
    """Return a value as YAML has it; None for one that is not given."""
    match value:
        case None | bool() | int() | float():
            return value
        case tuple():
            return [*value] or None
        case timedelta():
            seconds = int(value.total_seconds())
            hours, rest = divmod(seconds, _HOUR_S)
            return f"{seconds // 60}m" if rest else f"{hours}h"
        case StorageLocation():
            return _target(value)
        case _:
            return str(value)


def _without_password(uri: str) -> str | None:
    """Return libvirt's URI without a password and parameters; None where that is not clear."""
    bare, _, parameters = uri.partition("?")
    if "#" in uri or "@" in parameters or bare.count("@") > 1:
        return None
    scheme, slashes, rest = bare.partition("//")
    login, at, place = rest.rpartition("@")
    user = re.match(r"[\w.-]*", login)
    return f"{scheme}{slashes}{user[0] if user else ''}{at}{place}"


def _plain(text: object) -> str:
    """Return a text of others for a comment: no line break ends it."""
    return ascii(str(text))[1:-1]
