"""The keys of each section, and how a section is read.

``loading`` reads the whole file with it. A section is read on its own, before defaults and group
are merged, so that an error names the place of the value.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from virtbackup_async.config import target_value, values
from virtbackup_async.config.patterns import PatternError, parse_pattern
from virtbackup_async.config.problems import Problems
from virtbackup_async.config.schema import (
    USUAL_MAX_AGE,
    Group,
    Hooks,
    HostEntry,
    LogSettings,
    NotifySettings,
    ReportSettings,
    Retention,
)
from virtbackup_async.config.values import Check, SecretValueError, WrongValueError
from virtbackup_async.config.yaml_file import KeyPath
from virtbackup_async.model.backup import Packager
from virtbackup_async.model.packager import (
    NULL_TYPE,
    SHARING_TYPE,
    USUAL_TYPE,
    type_named,
    type_of,
)
from virtbackup_async.model.pull import Method
from virtbackup_async.model.storage_location import StorageLocation

Section = dict[str, Any]
_NOBODY = NotifySettings()
_VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})")

RETENTION_KEYS = tuple(rule.name for rule in fields(Retention))

TOP_KEYS: Mapping[str, Check] = {
    "debug": values.flag,
    "threads": values.count(0),
    "parallel_disks": values.count(1),
    "buffers_mib": values.count(1),
    "io_priority": values.one_of("normal", "idle"),
    "rate_limit": values.rate,
    "uri": values.optional_text,
    "username": values.optional_text,
    "passphrase": values.optional_text,
    "metrics_textfile": values.file,
    "state_directory": values.file,
    "hooks": values.mapping,
    "notify": values.mapping,
    "log": values.mapping,
    "report": values.mapping,
    "default": values.mapping,
    "groups": values.mapping,
}
GROUP_KEYS: Mapping[str, Check] = {
    "target": target_value.target,
    "packager": values.packager_type,
    "packager_opts": values.mapping,
    "autostart": values.flag,
    "quiesce": values.flag,
    "rate_limit": values.rate,
    "method": values.method,
    "scratch": values.file,
    "audit_percent": values.percent,
    "full_every": values.age,
    "max_age": values.age,
    "track_with_snapshots": values.flag,
    **dict.fromkeys(RETENTION_KEYS, values.keep),
    "hosts": values.items,
    "hooks": values.mapping,
    "copies": target_value.copies,
    "append_only": values.flag,
    "protect": values.age,
    "verify_read_data": values.read_share,
    "encryption": values.mapping,
}
ENCRYPTION_KEYS: Mapping[str, Check] = {
    "key_file": values.file,
    "sealed_for": values.file,
}
HOST_KEYS: Mapping[str, Check] = {
    "host": values.text,
    "disks": values.texts,
    "quiesce": values.flag,
}
HOOK_KEYS: Mapping[str, Check] = {
    "before": values.command,
    "after": values.command,
    "on_failure": values.command,
    "timeout_s": values.count(1),
}
NOTIFY_KEYS: Mapping[str, Check] = {
    "urls": values.texts,
    "on": values.one_of("failure", "always"),
}
LOG_KEYS: Mapping[str, Check] = {
    "journald": values.flag,
    "file": values.file,
    "level": values.one_of("debug", "info", "warning", "error"),
}
REPORT_KEYS: Mapping[str, Check] = {
    "html": values.file,
    "mode": values.file_mode,
    "mail": values.one_of("never", "daily", "weekly"),
}
# What null means where it does not mean "as if the key were not there".
NULLS: Mapping[str, Any] = {
    **dict.fromkeys(RETENTION_KEYS),
    "packager": NULL_TYPE,
    "autostart": False,
}


def read_section(
    section: Mapping[Any, Any], keys: Mapping[str, Check], key_path: KeyPath, problems: Problems
) -> Section:
    """Return the checked values of the given keys; add what is wrong to ``problems``."""
    read: Section = {}
    for key, value in section.items():
        where = (*key_path, str(key))
        if key not in keys:
            problems.unknown_key(where, "unknown key, ignored", keys)
        elif value is None:
            read.update({key: NULLS[key]} if key in NULLS else {})
        else:
            try:
                read[key] = keys[key](value)
            except SecretValueError as error:
                problems.error(where, str(error))
            except WrongValueError as error:
                problems.wrong(where, value, str(error))
            else:
                _tell_variables(where, read[key], problems)
    return read


def _tell_variables(key_path: KeyPath, value: object, problems: Problems) -> None:
    """Warn that a path is taken literally: a directory may be called ``$HOST``, but seldom is."""
    is_path = isinstance(value, Path | StorageLocation)
    if is_path and (found := _VARIABLE.search(str(value))):
        problems.warn(key_path, f"{found[0]} is a part of the path: variables are not expanded")


def read_group_section(
    section: Mapping[Any, Any], key_path: KeyPath, problems: Problems
) -> Section:
    """Return the checked values of a group or of the defaults, hosts parsed."""
    read = read_section(section, GROUP_KEYS, key_path, problems)
    for key in section:
        if str(key).lower().startswith("encr") and key not in GROUP_KEYS:
            # A typo must not leave the backups for everybody to read.
            problems.error((*key_path, str(key)), "unknown key, expected encryption")
    if "hosts" in read:
        where = (*key_path, "hosts")
        entries = [
            _read_host(entry, (*where, index), problems)
            for index, entry in enumerate(read["hosts"])
        ]
        read["hosts"] = tuple(entry for entry in entries if entry)
    if "hooks" in read:
        read["hooks"] = read_hooks(read["hooks"], (*key_path, "hooks"), problems)
    if "encryption" in read:
        where = (*key_path, "encryption")
        encryption = read_section(read["encryption"], ENCRYPTION_KEYS, where, problems)
        if "key_file" not in encryption:
            # Without it the backups would be stored for everybody to read.
            problems.error(where, "key_file is missing: the path of a file for the key")
        read["encryption"] = encryption
    return read


def read_hooks(section: Section, key_path: KeyPath, problems: Problems) -> Hooks:
    """Return the hooks of the run, of a group or of the defaults."""
    return Hooks(**read_section(section, HOOK_KEYS, key_path, problems))


def read_operations(top: Section, problems: Problems) -> Section:
    """Return the checked hooks, notifications, log and report of the file, if given."""
    read: Section = {}
    if "hooks" in top:
        read["hooks"] = read_hooks(top["hooks"], ("hooks",), problems)
    if "notify" in top:
        notify = read_section(top["notify"], NOTIFY_KEYS, ("notify",), problems)
        read["notify"] = NotifySettings(**notify)
    if "log" in top:
        log = read_section(top["log"], LOG_KEYS, ("log",), problems)
        read["log"] = LogSettings(**log)
    if "report" in top:
        report = read_section(top["report"], REPORT_KEYS, ("report",), problems)
        read["report"] = ReportSettings(**report)
        if "html" not in report:
            problems.warn(("report",), "nothing is reported: html, the path of a file, is missing")
        elif report.get("mail", "never") != "never" and not read.get("notify", _NOBODY).urls:
            problems.warn(("report", "mail"), "nobody gets it: notify has no urls")
    return read


def merge_group(name: str, default: Section, section: Section, problems: Problems) -> Group:
    """Return the group that its section makes on top of the defaults, key by key."""
    merged = {**default, **section}
    packager = _packager(name, default, section, problems)
    target = _target(name, merged, section, packager, problems)
    return Group(
        name=name,
        target=_encrypted(name, merged, target, problems),
        packager=packager,
        autostart=merged.get("autostart", False),
        autostart_given="autostart" in merged,
        quiesce=merged.get("quiesce", False),
        method=Method(merged["method"]) if "method" in merged else _usual_method(packager),
        scratch=merged.get("scratch"),
        audit_percent=merged.get("audit_percent", 1.0),
        full_every=merged.get("full_every"),
        max_age=merged.get("max_age", USUAL_MAX_AGE),
        track_with_snapshots=merged.get("track_with_snapshots", False),
        retention=Retention(**{rule: merged[rule] for rule in RETENTION_KEYS if rule in merged}),
        hosts=merged.get("hosts", ()),
        hooks=merged.get("hooks", Hooks()),
        rate_limit=merged.get("rate_limit"),
        copies=merged.get("copies", ()),
        append_only=merged.get("append_only", False),
        protect=merged.get("protect"),
        verify_read_data=merged.get("verify_read_data"),
    )


def _target(
    name: str, merged: Section, section: Section, packager: Packager, problems: Problems
) -> StorageLocation | None:
    target: StorageLocation | None = merged.get("target")
    if target is None:
        return None
    where: KeyPath = ("groups", name) if "target" in section else ("default",)
    if target.is_local:
        if not target.directory.is_absolute():
            problems.warn((*where, "target"), "is relative to where the command is started")
        return StorageLocation.of(target.directory.absolute())
    kind = type_of(packager)
    if kind.is_known and not kind.uses_repository:
        message = f"{packager.type} packages need a directory: write `packager: {SHARING_TYPE}`"
        problems.error(("groups", name, "target"), f"{message} for {target}")
    return target


def _encrypted(
    name: str, merged: Section, target: StorageLocation | None, problems: Problems
) -> StorageLocation | None:
    """Return the target with its key files, if the group is encrypted."""
    encryption: Section = merged.get("encryption", {})
    key_file: Path | None = encryption.get("key_file")
    if target is None or key_file is None:
        return target
    where: KeyPath = ("groups", name, "encryption")
    packager = merged.get("packager", USUAL_TYPE)
    if not type_named(packager).uses_repository:
        problems.error(where, f"only a repository is encrypted: write `packager: {SHARING_TYPE}`")
    if target.is_local and target.directory in key_file.parents:
        problems.error(where, f"the key is in the target, which it is to close: {key_file}")
    return replace(target, key_file=key_file, sealed_for=encryption.get("sealed_for"))


def _usual_method(packager: Packager) -> Method:
    """Return the method of a group that names none: only a pull can be incremental."""
    return Method.AUTO if type_of(packager).is_incremental else Method.SNAPSHOT


def _read_host(entry: object, key_path: KeyPath, problems: Problems) -> HostEntry | None:
    if isinstance(entry, str):
        entry = {"host": entry}
    if not isinstance(entry, dict):
        problems.wrong(key_path, entry, "a domain's name in quotes, or a mapping with host")
        return None
    read = read_section(entry, HOST_KEYS, key_path, problems)
    if "host" not in read:
        if entry.get("host") is None:
            problems.error(key_path, "host is missing: the domain's name, or a pattern")
        return None
    try:
        pattern = parse_pattern(read["host"])
    except PatternError as error:
        problems.error(key_path, str(error))
        return None
    return HostEntry(pattern, read.get("disks", ()), read.get("quiesce"))


def _packager(name: str, default: Section, section: Section, problems: Problems) -> Packager:
    inherited: str = default.get("packager", USUAL_TYPE)
    packager_type: str = section.get("packager", inherited)
    where: KeyPath = ("groups", name) if "packager_opts" in section else ("default",)
    opts = {**default, **section}.get("packager_opts", {})
    if problems.has_error(("groups", name, "packager")):
        return Packager(packager_type)  # whose options they are is not known
    if "packager_opts" not in section and packager_type != inherited:
        if opts:
            message = f"packager_opts of default are for {inherited}, not used for {packager_type}"
            problems.warn(("groups", name, "packager"), message)
        opts = {}
    _check_options(packager_type, opts, (*where, "packager_opts"), problems)
    return Packager(packager_type, type_named(packager_type).clean(opts))


def _check_options(packager_type: str, opts: Section, where: KeyPath, problems: Problems) -> None:
    known = type_named(packager_type).options
    for key in opts:
        if key not in known:
            message = f"no option of the packager {packager_type}, ignored"
            problems.unknown_key((*where, str(key)), message, known)
    for problem in type_named(packager_type).problems(opts):
        key, _, message = problem.partition(": ")
        problems.error((*where, key), message)
