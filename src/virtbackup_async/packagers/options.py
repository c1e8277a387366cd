"""Which packagers there are, and which options each of them takes.

The configuration is checked with it before anything is done. Definitions of old backups are not:
a reader uses the one option that it needs, and leaves the rest alone.
"""

from typing import Final

from virtbackup_async.errors import ConfigError
from virtbackup_async.model.backup import Packager
from virtbackup_async.packagers.names import COMPRESSIONS

# 0 is "the usual level" everywhere, as in virt-backup.
_TAR_LEVELS: Final = range(10)
_ZSTD_LEVELS: Final = range(23)
_OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "directory": (),
    "tar": ("compression", "compression_lvl"),
    "zstd": ("compression_lvl", "threads"),
    "repository": ("compression_lvl",),
}


def validate_opts(packager: Packager) -> None:
    """Check a configured packager.

    Raises:
        ConfigError: no such packager, an option it does not have, or a value it cannot take.
    """
    known = _OPTIONS.get(packager.type)
    if known is None:
        raise ConfigError(f"unknown packager: {packager.type!r}", hint=_one_of(_OPTIONS))
    for option, value in packager.opts.items():
        if option not in known:
            message = f"packager {packager.type} has no option {option!r}"
            raise ConfigError(message, hint=_one_of(known) if known else "Remove it.")
        _check_value(packager.type, option, value)


def _check_value(packager: str, option: str, value: object) -> None:
    if option == "compression":
        if value not in COMPRESSIONS:
            names = [name for name in COMPRESSIONS if name is not None]
            raise ConfigError(f"unknown tar compression: {value!r}", hint=_one_of(names))
        return
    levels = _TAR_LEVELS if packager == "tar" else _ZSTD_LEVELS
    allowed = levels if option == "compression_lvl" else range(-1, 65)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if value is not None and not (is_number and value in allowed):
        raise ConfigError(
            f"packager {packager}: {option} is {value!r}",
            hint=f"Give a number from {allowed[0]} to {allowed[-1]}.",
        )


def _one_of(names: object) -> str:
    return f"Use one of {', '.join(map(str, names))}."  # type: ignore[call-overload]
