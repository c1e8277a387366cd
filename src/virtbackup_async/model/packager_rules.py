"""Which packagers there are, and which options each of them takes.

The configuration checks and cleans what an admin wrote with it, the packagers what they are handed.
Options end up in the definition, where virt-backup passes them on as keyword arguments: only the
two that it knows too may ever stand there.
"""

from collections.abc import Mapping
from typing import Any

PACKAGER_TYPES = ("directory", "tar", "zstd", "repository")
COMPRESSIONS = (None, "gz", "bz2", "xz")

_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "directory": (),
    "tar": ("compression", "compression_lvl"),
    "zstd": ("compression_lvl",),
    "repository": ("compression_lvl",),
}


def known_options(packager_type: str) -> tuple[str, ...]:
    """Return the names of the options that a packager takes; none for one that is unknown."""
    return _OPTIONS.get(packager_type, ())


def clean_options(packager_type: str, opts: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that matter, in the one way of writing them.

    An unknown option goes, and so does one that says "nothing special": null, the text ``None``
    (virt-backup's example has it) and ``compression: tar``, which is a tar without compression.
    """
    cleaned = {key: opts[key] for key in known_options(packager_type) if key in opts}
    return {key: value for key, value in cleaned.items() if not _says_nothing(key, value)}


def check_packager(packager_type: str, opts: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a packager and its options, a line each; empty if all is well.

    Args:
        packager_type: as the configuration or a definition names it.
        opts: the options; unknown ones are no error, see :func:`known_options`.
    """
    if packager_type not in PACKAGER_TYPES:
        expected = ", ".join(PACKAGER_TYPES)
        return [f"packager: found {packager_type!r:.60}, expected one of {expected}"]
    cleaned = clean_options(packager_type, opts)
    compression = cleaned.get("compression")
    if compression not in COMPRESSIONS:
        return [f"compression: found {compression!r:.60}, expected none, gz, bz2 or xz"]
    if "compression_lvl" not in cleaned:
        return []
    return _check_level(cleaned["compression_lvl"], *levels(packager_type, compression))


def _says_nothing(option: str, value: object) -> bool:
    if option == "compression" and isinstance(value, str):
        return value.lower() in ("none", "tar")
    return value is None


def levels(packager_type: str, compression: str | None) -> tuple[int, int]:
    """Return the lowest and highest level; zstd's 0 stands for its own default."""
    if packager_type in ("zstd", "repository"):
        return 0, 22
    return (0, 9) if compression == "xz" else (1, 9)


def _check_level(level: object, lowest: int, highest: int) -> list[str]:
    if isinstance(level, int) and not isinstance(level, bool) and lowest <= level <= highest:
        return []
    expected = f"expected a whole number from {lowest} to {highest}"
    return [f"compression_lvl: found {level!r:.60}, {expected}"]
