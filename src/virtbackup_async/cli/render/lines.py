r"""Prints lines that are no wider than the terminal; a pipe gets each line in one piece.

A message is folded between words. A command to paste goes on after a backslash, and is never broken
inside an argument::

    virtbackup -c /srv/backup/config.yml restore --as web-restored \
      web@20260701-030000_3_web DIRECTORY
"""

import re
import shlex
from collections.abc import Iterator
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from virtbackup_async.cli.render.console import escaped, room_of
from virtbackup_async.cli.render.glyphs import glyphs_for

INDENT: Final = "  "
_CONTINUED: Final = " \\"
_LEAST_TEXT: Final = 20
_COMMAND: Final = re.compile("`[^`]+`")
# No printable text has it.
_JOINED: Final = "\ue000"


def print_line(
    console: Console, text: str, style: str = "", *, head: str = "", head_style: str = ""
) -> None:
    """Print a line, and fold it if it is too wide.

    Args:
        console: stdout.
        text: it is escaped here, as is the head.
        style: of the text.
        head: stands before the text, whose further rows are indented by the width of the head.
        head_style: of the head.
    """
    for row in folded(console, text, style, head=head, head_style=head_style):
        console.print(row, soft_wrap=True)


def folded(
    console: Console, text: str, style: str = "", *, head: str = "", head_style: str = ""
) -> Iterator[Text]:
    """Yield the rows of a line; the arguments are those of ``print_line``."""
    head, text, room = escaped(console, head), escaped(console, text), room_of(console)
    indent = " " * cell_len(head)
    if indent and room - len(indent) < min(_LEAST_TEXT, cell_len(text)):
        yield from wrapped(console, Text(head.rstrip(), head_style), room)
        head = indent = INDENT
    for row in wrapped(console, Text(text, style), room - len(indent)):
        yield Text.assemble((head, head_style), row)
        head = indent


def print_command(console: Console, command: str, *, head: str = "") -> None:
    """Print a command to paste; if it is too wide, below the head, which is no part of it."""
    head, command, room = escaped(console, head), escaped(console, command), room_of(console)
    line = f"{head}{command}"
    if cell_len(line) <= room:
        console.print(Text(line), soft_wrap=True)
        return
    if head:
        print_line(console, head.rstrip())
    for row in command_rows(command, room):
        console.print(Text(row), soft_wrap=True)


def command_rows(command: str, width: int) -> list[str]:
    """Return the rows of a command, in which a shell sees one line.

    Each has room for its backslash; only a row with one word may be wider than ``width``.
    """
    if cell_len(command) <= width:
        return [command]
    try:
        words = list(map(shlex.quote, shlex.split(command)))
    except ValueError:
        return [command]  # no command that a shell would take
    first, *others = words
    rows = [first]
    for word in others:
        if cell_len(f"{rows[-1]} {word}{_CONTINUED}") <= width:
            rows[-1] += f" {word}"
        else:
            rows[-1] += _CONTINUED
            rows.append(f"{INDENT}{word}")
    return rows


def cut(console: Console, text: str, width: int) -> str:
    """Return a text of at most ``width`` cells, with an ellipsis in place of what is too much."""
    if cell_len(text) <= width:
        return text
    ellipsis = glyphs_for(console).ellipsis
    return set_cell_size(text, width - cell_len(ellipsis)).rstrip() + ellipsis


def wrapped(console: Console, text: Text, width: int) -> list[Text]:
    """Return a text as rows of at most ``width`` cells, folded between words if possible."""
    if cell_len(text.plain) <= width:
        return [text]
    # A command in a sentence stays in one row if it fits into one.
    text.plain = _COMMAND.sub(lambda found: found[0].replace(" ", _JOINED), text.plain)
    rows = list(text.wrap(console, width, overflow="fold"))
    for row in rows:
        row.plain = row.plain.replace(_JOINED, " ").rstrip()
    return rows
