"""The configuration of virt-backup 0.1 to 0.5.6, with today's keys.

A configuration carries no version, so every step runs on every file. ``config`` calls
:func:`upgrade`, then tells the admin of each :class:`Change` what to write instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from virtbackup_async.compat.definition import packager_of_compression
from virtbackup_async.compat.steps import Raw

RENAMED_AT_THE_TOP = {"password": "passphrase"}
RENAMED_IN_GROUPS = {"target_dir": "target"}
OLD_COMPRESSION = ("compression", "compression_lvl")
"""In groups: ``packager`` and ``packager_opts`` are in their place."""

EMPTY_IN_ITS_EXAMPLE = ("username", "passphrase")
"""Keys that stand without a value in virt-backup's example, and so in what was made of it."""

_OPTIONS_IN_DEFAULT = frozenset({*OLD_COMPRESSION, "packager_opts"})


@dataclass(frozen=True, slots=True)
class Change:
    """Old keys of one section of the file, and the keys that replace them.

    Attributes:
        section: where the keys stand.
        instead: the new keys with their values; not in the repr, a passphrase may be there.
        is_rename: the value stays as it is, under the one new key.
    """

    section: tuple[str, ...]
    old: tuple[str, ...]
    instead: Raw = field(repr=False)
    is_rename: bool = False

    @property
    def name(self) -> str:
        """The changed keys with their section: ``groups.test.compression and compression_lvl``."""
        return ".".join((*self.section, " and ".join(self.old)))


def upgrade(raw: Raw) -> tuple[Raw, list[Change]]:
    """Return a configuration with today's keys, and what was changed; ``raw`` stays as it is.

    Values are checked only as far as the change needs: a section that is no mapping stays as it is.
    """
    changes: list[Change] = []
    default = raw.get("default")
    inherited = default if isinstance(default, dict) else {}
    upgraded = _rename((), raw, RENAMED_AT_THE_TOP, changes)
    if isinstance(default, dict):
        upgraded = {**upgraded, "default": _section(("default",), default, {}, changes)}
    groups = raw.get("groups")
    if isinstance(groups, dict):
        named = {
            name: _section(("groups", str(name)), group, inherited, changes)
            for name, group in groups.items()
        }
        upgraded = {**upgraded, "groups": named}
    return upgraded, changes


def has_empty_keys_of_the_example(raw: Raw) -> bool:
    """Tell whether a file was made of virt-backup's example."""
    return any(key in raw and raw[key] is None for key in EMPTY_IN_ITS_EXAMPLE)


def _section(
    path: tuple[str, ...], section: object, inherited: Raw, changes: list[Change]
) -> object:
    if not isinstance(section, dict):
        return section
    renamed = _rename(path, section, RENAMED_IN_GROUPS, changes)
    return _without_compression(path, renamed, inherited, changes)


def _rename(
    path: tuple[str, ...], section: Raw, names: Mapping[str, str], changes: list[Change]
) -> Raw:
    """Put the value of each old key under its new name, unless that is set."""
    for old, new in names.items():
        if old in section:
            instead = {new: section.get(new) or section[old]}
            changes.append(Change(path, (old,), instead, is_rename=True))
            section = {**{key: value for key, value in section.items() if key != old}, **instead}
    return section


def _without_compression(
    path: tuple[str, ...], section: Raw, inherited: Raw, changes: list[Change]
) -> Raw:
    old = tuple(key for key in OLD_COMPRESSION if key in section)
    if not old:
        return section
    # Each of the two keys was inherited on its own: a level from the defaults combined with the
    # compression of a group.
    effective = {key: inherited[key] for key in OLD_COMPRESSION if key in inherited}
    instead = _packager({**effective, **{key: section[key] for key in old}}, section, inherited)
    changes.append(Change(path, old, instead))
    return {**{key: value for key, value in section.items() if key not in old}, **instead}


def _packager(compression: Raw, section: Raw, inherited: Raw) -> Raw:
    given = section.get("packager_opts")
    if "compression" not in compression:
        return {"packager_opts": {**(given if isinstance(given, dict) else {}), **compression}}
    packager = packager_of_compression(compression)
    # Without options, those of the defaults would apply.
    is_inheriting = not given and not inherited.keys().isdisjoint(_OPTIONS_IN_DEFAULT)
    opts = {"packager_opts": packager["opts"]} if packager["opts"] or is_inheriting else {}
    return {"packager": packager["type"], **opts}
