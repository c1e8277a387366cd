"""Definitions of virt-backup 0.1 to 0.5.6, in today's shape.

0.4 put ``packager`` in place of ``compression``, ``compression_lvl`` and ``tar``, and gave each
backup its ``name``. 1.0 (this program) adds keys and changes none. ``catalog`` calls
:func:`upgrade`; ``pending`` shares the step to 0.4.
"""

import re
from datetime import UTC, datetime

from virtbackup_async.compat import steps
from virtbackup_async.compat.steps import Raw, Step

_ARCHIVE_SUFFIX = re.compile(r"\.tar(\.[a-z0-9]+)?$")
_NUMBER = re.compile(r"-?[0-9]{1,15}")
SHUT_OFF = -1
"""The id that libvirt returns for a domain that does not run."""
_OLD_KEYS = frozenset({"compression", "compression_lvl", "tar"})


def upgrade(raw: Raw) -> Raw:
    """Return a definition of any version in today's shape; ``raw`` stays as it is.

    Raises:
        DefinitionError: its version cannot be read.
    """
    return steps.upgrade(_with_numbers(raw), (TO_0_4, Step((1, 0, 0), dict)))


def _with_numbers(raw: Raw) -> Raw:
    """Read quoted numbers as numbers, and ignore an id that is no number.

    libvirt's id of the domain had a meaning only during the backup: it must not hide a backup.
    """
    known = dict(raw)
    for key in ("domain_id", "date"):
        if isinstance(text := raw.get(key), str) and _NUMBER.fullmatch(text):
            known[key] = int(text)
    if type(known.get("domain_id")) is not int:
        known["domain_id"] = SHUT_OFF
    return known


def _to_0_4(raw: Raw) -> Raw:
    kept = {key: value for key, value in raw.items() if key not in _OLD_KEYS}
    name = _name(raw)
    return {**kept, "packager": _packager(raw)} | ({"name": name} if name else {})


def packager_of_compression(raw: Raw) -> Raw:
    """Return the packager type and options that the old ``compression`` keys stood for."""
    compression = raw["compression"]
    if compression is None:
        return {"type": "directory", "opts": {}}
    opts = {} if compression == "tar" else {"compression": compression}
    if "compression_lvl" in raw:
        opts["compression_lvl"] = raw["compression_lvl"]
    return {"type": "tar", "opts": opts}


def _packager(raw: Raw) -> object:
    if "compression" in raw:
        return packager_of_compression(raw)
    return raw.get("packager", {"type": "directory", "opts": {}})


def _name(raw: Raw) -> object:
    """Return the backup's name: of its archive, else of its disks' files, else of its date."""
    if "tar" in raw:
        return _ARCHIVE_SUFFIX.sub("", str(raw["tar"]))
    return raw.get("name") or _name_of_disks(raw.get("disks")) or _name_of_date(raw)


def _name_of_disks(disks: object) -> str | None:
    """Return the name from the disk files: it has local time, which the date lacks."""
    for dev, file in disks.items() if isinstance(disks, dict) else ():
        text = file.get("target") if isinstance(file, dict) else file
        name, separator, _ = str(text).rpartition(f"_{dev}.")
        if separator:
            return name
    return None


def _name_of_date(raw: Raw) -> str | None:
    try:
        when = datetime.fromtimestamp(raw["date"], tz=UTC)
        return f"{when:%Y%m%d-%H%M%S}_{raw['domain_id']}_{raw['domain_name']}"
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return None  # the reader says which field is missing or wrong


TO_0_4 = Step((0, 4, 0), _to_0_4)
