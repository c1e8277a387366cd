"""The sections at the top that say what happens around a run: hooks, notifications, log.

``loading`` calls it; a group's own hooks are read with the group.
"""

from collections.abc import Mapping

from virtbackup_async.config import values
from virtbackup_async.config.problems import Problems
from virtbackup_async.config.schema import LogSettings, NotifySettings
from virtbackup_async.config.sections import Section, read_hooks, read_section
from virtbackup_async.config.values import Check

NOTIFY_KEYS: Mapping[str, Check] = {
    "urls": values.texts,
    "on": values.one_of("failure", "always"),
}
LOG_KEYS: Mapping[str, Check] = {
    "journald": values.flag,
    "file": values.file,
    "level": values.one_of("debug", "info", "warning", "error"),
}


def read_operations(top: Section, problems: Problems) -> Section:
    """Return those of the sections that are given, checked."""
    read: Section = {}
    if "hooks" in top:
        read["hooks"] = read_hooks(top["hooks"], ("hooks",), problems)
    if "notify" in top:
        notify = read_section(top["notify"], NOTIFY_KEYS, ("notify",), problems)
        read["notify"] = NotifySettings(**notify)
    if "log" in top:
        log = read_section(top["log"], LOG_KEYS, ("log",), problems)
        read["log"] = LogSettings(**log)
    return read
