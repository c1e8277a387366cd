"""Names of the files below a target, made from names that come from outside.

The engine takes the names of all its files from here. The readers of this layer check the names in
a definition with :func:`is_plain_name`. docs/reference/formats.md ("Names") is the reference::

    TARGET/web/20260301-021500_3_web.json
           |   |               | |
           |   local time      | domain, shortened where the longest file would not fit
           domain              libvirt's id, -1 when it was shut off

Many hosts may share a target that is no plain directory. There the directory carries the guest's
UUID as well, since two of them may have a guest of one name::

    s3://bucket/web.0b1c2d3e-4f50-4617-8829-3a4b5c6d7e8f/20260301-021500_3_web.json

Invariant: for any name of a domain, each name made from it is one path component of at most 255
bytes, and two domains never share one. Ordinary names, blanks and Unicode included, do not change:
virt-backup writes them in the same way.
"""

import hashlib
import re
import secrets
import unicodedata
from datetime import datetime
from pathlib import Path

from virtbackup_async.errors import DefinitionError
from virtbackup_async.model.backup import NVRAM
from virtbackup_async.model.guest import Guest
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.model.target_file import TargetFile

COMPONENT_MAX_BYTES = 255
# The longest file name that the program makes contains the backup's name twice, and
# "_", "_" + dev, "." + format and ".zstd".
NAME_MAX_BYTES = 106
_DOMAIN_MAX_BYTES = NAME_MAX_BYTES - len("20260301-021500_2147483647_")
# An encrypted target has room for 128 bytes in a name.
_NAME_BEFORE_UUID_MAX_BYTES = 128 - len(".0b1c2d3e-4f50-4617-8829-3a4b5c6d7e8f")
_DEV_MAX_BYTES = 20
_FORMAT_MAX_BYTES = 14
# The longest that a disk's name can be.
_STATE_MAX_BYTES = _DEV_MAX_BYTES + 1 + _FORMAT_MAX_BYTES
# Readers take files with these suffixes for the program's own: definitions and the files made from
# them (definition_file, pending_file, scanning), and a repository's maps.
_MEANT_SUFFIXES = ("json", "pending", "removed", "map")
_HASH_BYTES = 6
_OVERLAY_MARK = ".vbk-"
_KEPT_MARK = ".before-restore-"
_REPLACEMENT = "restore-"
_REPLACED = "old-"
_SCRATCH_SUFFIX = ".scratch"
_PART_SUFFIX = ".part"

_TOKEN = re.compile(r"[0-9a-f]{8}")
_TEMPORARY = re.compile(r"\.virtbackup-[0-9a-f]+\.tmp")
_TOKEN_DIGITS = 8
_UUID_AT_END = re.compile(r"(.+)\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.DOTALL)
_SNAPSHOT_TIME = re.compile(r"[0-9]{9,11}")

_UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_ESCAPE_LOOKALIKE = re.compile(r"%(?=[0-9A-Fa-f]{2})")


def backup_name(domain: str, domain_id: int, when: datetime) -> str:
    """Return a backup's name, ``YYYYmmdd-HHMMSS_<id>_<domain>``, in local time.

    Args:
        domain: the domain's name, whatever it contains.
        domain_id: libvirt's id, -1 for a domain that is shut off.
        when: an aware time; a naive one counts as local.
    """
    stamp = when.astimezone().strftime("%Y%m%d-%H%M%S")
    return f"{stamp}_{domain_id}_{path_component(domain, _DOMAIN_MAX_BYTES)}"


def domain_directory(target: StorageLocation, domain: str) -> TargetFile:
    """Return the directory of a domain by its name alone, right below ``target``.

    It holds the domain's backups in a plain directory, and those of earlier versions in any target.
    """
    return TargetFile(target, path_component(domain, COMPONENT_MAX_BYTES))


def guest_directories(target: StorageLocation, guest: Guest) -> tuple[TargetFile, ...]:
    """Return the directories that may hold a guest's backups; new ones go into the last.

    A plain directory is virt-backup's: backups go into the directory of the name. It may be that
    of a store server, which hosts fill over ssh, so the other one is looked into first.
    """
    by_name = domain_directory(target, guest.name)
    if guest.uuid is None:
        return (by_name,)
    stem = path_component(guest.name, _NAME_BEFORE_UUID_MAX_BYTES)
    by_uuid = TargetFile(target, f"{stem}.{guest.uuid}")
    return (by_name, by_uuid) if target.plain_directory is None else (by_uuid, by_name)


def guest_of_directory(name: str) -> Guest:
    """Return the guest that a directory is named after; its name may be escaped or shortened."""
    found = _UUID_AT_END.fullmatch(name)
    return Guest(name) if found is None else Guest(found[1], found[2])


def disk_file(name: str, dev: str, image_format: str) -> str:
    """Return the file name of an image inside the package: ``<name>_<dev>.<format>``.

    A backing image's ``dev`` is that of its disk, ``-backing`` and its depth.
    """
    dev = path_component(dev, _DEV_MAX_BYTES)
    return f"{name}_{dev}.{path_component(image_format, _FORMAT_MAX_BYTES)}"


def state_file(name: str, kind: str, file: str) -> str:
    """Return the name inside the package of a file of the domain's state.

    No reader takes it for a definition, whatever its original name is: a TPM emulator names its own
    files, and must not be able to add a definition to a target.

    Args:
        name: the backup's.
        kind: ``nvram``, which is one file, or another kind of model/domain_state.py.
        file: the name of the original file.
    """
    if kind == NVRAM:
        return f"{name}_nvram.fd"
    escaped = _escaped(file)
    stem, _, suffix = escaped.rpartition(".")
    if suffix in _MEANT_SUFFIXES:
        escaped = f"{stem}{_escape('.')}{suffix}"
    return f"{name}_{kind}-{_shortened(escaped, _STATE_MAX_BYTES - len(kind) - 1)}"


def overlay_path(image: Path, token: str) -> Path:
    """Return the path of an overlay: ``<name of the image>.vbk-<token>``, next to ``image``."""
    return beside(image, token)


def beside(image: Path, token: str) -> Path:
    """Return a path next to ``image``: the image's name, shortened if necessary, and the token."""
    suffix = f"{_OVERLAY_MARK}{token}"
    stem = _shortened(image.name, COMPONENT_MAX_BYTES - len(suffix.encode()))
    return image.with_name(stem + suffix)


def is_marked(path: Path) -> bool:
    """Return whether this program might have named a file: an overlay, a scratch image, ..."""
    return _OVERLAY_MARK in path.name


def image_beside(path: Path) -> Path:
    """Return the image that a file was named after; the file itself if it has no such name."""
    return path.with_name(path.name.rpartition(_OVERLAY_MARK)[0]) if is_marked(path) else path


def replacement_path(image: Path, token: str) -> Path:
    """Return the path at which a restore in place writes the new image."""
    return beside(image, f"{_REPLACEMENT}{token}")


def replaced_path(image: Path, token: str) -> Path:
    """Return the path of the old image during a restore in place, until all disks are replaced."""
    return beside(image, f"{_REPLACED}{token}")


def is_of_restore(path: Path) -> bool:
    """Return whether a file's name is one that a restore in place gives to a temporary file."""
    return any(f"{_OVERLAY_MARK}{kind}" in path.name for kind in (_REPLACEMENT, _REPLACED))


def is_replacement_of(path: Path, image: Path) -> bool:
    """Return whether ``replacement_path`` gives this name to a file for the image."""
    token = path.name[-_TOKEN_DIGITS:]
    return _TOKEN.fullmatch(token) is not None and path == replacement_path(image, token)


def is_replaced_of(path: Path, image: Path) -> bool:
    """Return whether ``replaced_path`` gives this name to a file for the image."""
    token = path.name[-_TOKEN_DIGITS:]
    return _TOKEN.fullmatch(token) is not None and path == replaced_path(image, token)


def kept_path(image: Path, date: str) -> Path:
    """Return the final path of an image that a restore in place replaced; the admin owns it."""
    suffix = f"{_KEPT_MARK}{date}"
    return image.with_name(_shortened(image.name, COMPONENT_MAX_BYTES - len(suffix)) + suffix)


def is_kept(name: str) -> bool:
    """Return whether ``kept_path`` gives such a name."""
    return _KEPT_MARK in name


def scratch_path(directory: Path, image: str, token: str) -> Path:
    """Return the path of a pull job's scratch image: in ``directory``, named after the image."""
    suffix = f"{_OVERLAY_MARK}{token}{_SCRATCH_SUFFIX}"
    stem = path_component(image, COMPONENT_MAX_BYTES - len(suffix.encode()))
    return directory / f"{stem}{suffix}"


def is_scratch(path: Path) -> bool:
    """Return whether ``scratch_path`` gives such a path."""
    return path.is_absolute() and _is_marked_and_ends(path.name, _SCRATCH_SUFFIX)


def part_path(path: Path, token: str) -> Path:
    """Return the path at which a restore writes the file ``path`` until all files are complete."""
    suffix = f"{_OVERLAY_MARK}{token}{_PART_SUFFIX}"
    stem = path_component(path.name, COMPONENT_MAX_BYTES - len(suffix))
    return path.with_name(stem + suffix)


def is_part(path: Path) -> bool:
    """Return whether ``part_path`` gives such a name to a file."""
    return _is_marked_and_ends(path.name, _PART_SUFFIX)


def temporary_name() -> str:
    """Return a new name for a temporary file; `clean` removes one that a crash left behind."""
    return f".virtbackup-{secrets.token_hex(8)}.tmp"


def is_temporary(name: str) -> bool:
    """Return whether ``temporary_name`` gives such a name."""
    return _TEMPORARY.fullmatch(name) is not None


def is_overlay_of(overlay: Path, image: Path) -> bool:
    """Return whether this program or libvirt could have given an overlay of ``image`` this name.

    libvirt replaces the image's suffix by the snapshot's name. virt-backup leaves it to libvirt.
    """
    named_alike = overlay.name.startswith(f"{image.stem}.") or _OVERLAY_MARK in overlay.name
    return overlay.parent == image.parent and overlay != image and named_alike


def is_overlay_of_ours(overlay: Path, image: Path) -> bool:
    """Return whether ``overlay_path`` gives this name to an overlay of ``image``."""
    token = overlay.name[-_TOKEN_DIGITS:]
    return _TOKEN.fullmatch(token) is not None and overlay == overlay_path(image, token)


def is_overlay_of_virt_backup(overlay: Path, image: Path) -> bool:
    """Return whether libvirt itself gives such a name to an overlay of ``image``.

    It replaces the image's suffix by the snapshot's name. A snapshot without a name is named after
    the time, in seconds since the epoch. virt-backup names no snapshots.
    """
    time = overlay.name.removeprefix(f"{image.stem}.")
    return overlay.parent == image.parent and _SNAPSHOT_TIME.fullmatch(time) is not None


def is_plain_name(name: str) -> bool:
    """Return whether ``name`` is one visible path component that leads to no other directory."""
    if not name or name.startswith(".") or "/" in name:
        return False
    # The common case, thousands of times in a scan: a printable name has no unsafe character.
    if not name.isprintable() and any(map(_is_unsafe, name)):
        return False
    return len(name.encode()) <= COMPONENT_MAX_BYTES


def plain_name(name: str) -> str:
    """Return ``name`` if it is a plain one, see ``is_plain_name``.

    Raises:
        DefinitionError: it is not.
    """
    if not is_plain_name(name):
        raise DefinitionError(f"not a plain file name: {name!r:.300}")
    return name


def path_component(name: str, max_bytes: int) -> str:
    """Return ``name`` as one path component: itself, or escaped and shortened.

    Escapes are ``%`` and two hexadecimal digits for each UTF-8 byte. A ``%`` that looks like the
    start of one is escaped too, so two names never become the same component.
    """
    return _shortened(_escaped(name), max_bytes)


def _is_marked_and_ends(name: str, suffix: str) -> bool:
    stem, _, token = name.removesuffix(suffix).rpartition(_OVERLAY_MARK)
    return name.endswith(suffix) and bool(stem) and _TOKEN.fullmatch(token) is not None


def _escaped(name: str) -> str:
    escaped = _ESCAPE_LOOKALIKE.sub("%25", name)
    escaped = "".join(_escape(char) if _is_unsafe(char) else char for char in escaped)
    if escaped.startswith("."):
        escaped = _escape(".") + escaped[1:]
    # No other name becomes this one: a blank is never escaped.
    return escaped or "%20"


def _is_unsafe(char: str) -> bool:
    return char == "/" or unicodedata.category(char) in _UNSAFE_CATEGORIES


def _escape(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


def _shortened(name: str, max_bytes: int) -> str:
    """Cut ``name`` to ``max_bytes``; a hash of the complete name replaces the rest."""
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) <= max_bytes:
        return name
    suffix = "~" + hashlib.blake2s(encoded, digest_size=_HASH_BYTES).hexdigest()
    return encoded[: max_bytes - len(suffix)].decode("utf-8", "ignore") + suffix
