"""The systemd units for this installation, made from the templates in contrib/systemd.

The templates call ``virtbackup``, but systemd would search for it in a few directories only. So a
unit names the program by its path, and the configuration if a run would not find it by itself.
"""

import re
from collections.abc import Iterator, Sequence
from importlib.resources.abc import Traversable

from msgspec import Struct

from virtbackup_async.files.shipped import SYSTEMD_UNITS, shipped

MARK = "# Written by `virtbackup systemd install`: change it with `systemctl edit`, not here.\n"
TIMERS = ("virtbackup-backup.timer", "virtbackup-verify.timer")
AT_BOOT = "virtbackup-clean.service"
# It needs rights that the service manager of a user does not have.
_FOR_ROOT = "hardening.conf"
_EXEC = re.compile(r"^(Exec\w+=)virtbackup ", re.MULTILINE)
_PLAIN = re.compile(r"^[A-Za-z0-9/._+@:=,-]+$")

_REFUSED = ('"', "'", "\\")


class Unit(Struct, frozen=True):
    """A unit, or a drop-in for units; ``name`` is its path below the directory of units."""

    name: str
    text: str


def units_for(program: Sequence[str], *, user: bool) -> tuple[Unit, ...]:
    """Return all units.

    Args:
        program: the program, with the options that come before the name of a command.
        user: whether they are for the service manager of a user, not for the system's.

    Raises:
        ValueError: the command line cannot be written into a unit.
    """
    if any(sign in program[0] for sign in _REFUSED):
        message = f"systemd starts no program with a quote or a backslash in its path: {program[0]}"
        raise ValueError(message)
    command = " ".join((quoted(program[0]), *(_argument(word) for word in program[1:])))

    def with_program(found: re.Match[str]) -> str:
        return f"{found[1]}{command} "

    return tuple(
        Unit(name, MARK + _EXEC.sub(with_program, _for_user(text) if user else text))
        for name, text in sorted(_templates(shipped(SYSTEMD_UNITS)))
        if not (user and name.endswith(_FOR_ROOT))
    )


def quoted(word: str) -> str:
    """Return a word of a command line, quoted by systemd.service(5) and systemd.syntax(7).

    Raises:
        ValueError: it has a line break or another control character.
    """
    if _PLAIN.match(word):
        return word
    if not word.isprintable():
        message = f"{word!r} cannot be written into a unit: rename it"
        raise ValueError(message)
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _argument(word: str) -> str:
    """Return a word after the program, quoted: in these, systemd also replaces variables."""
    return quoted(word).replace("$", "$$")


def _for_user(text: str) -> str:
    text = text.replace("WantedBy=multi-user.target", "WantedBy=default.target")
    return text.replace("Wants=network-online.target\n", "")


def _templates(folder: Traversable, above: str = "") -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        name = f"{above}{entry.name}"
        if entry.is_dir():
            yield from _templates(entry, f"{name}/")
        else:
            yield name, entry.read_text()
