"""Command lines of virtbackup, as pages and scripts show them, read without running them."""

import re
import shlex
from collections.abc import Iterator

import click

from virtbackup_async.cli.main import virtbackup

_ENDS = "|<>;&()\n"
_BEFORE_A_COMMAND = frozenset({"{", "do", "then", "if", "while", "!"})
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*$", re.MULTILINE)


def commands_of(script: str) -> Iterator[list[str]]:
    """Yield the words after ``virtbackup`` of each of its commands in some lines of shell."""
    lexer = shlex.shlex(_COMMENT.sub("", script), posix=True, punctuation_chars=_ENDS)
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t", "", True
    words: list[str] | None = None
    starts = True
    for word in lexer:
        if set(word) <= set(_ENDS):
            if words is not None:
                yield words
            words, starts = None, True
        elif words is not None:
            words.append(word)
        elif starts and word not in _BEFORE_A_COMMAND:
            starts = False
            words = [] if word == "virtbackup" else None
    if words is not None:
        yield words


def parse(words: list[str]) -> None:
    """Parse a command with its options and arguments.

    Raises:
        click.UsageError: there is no such command, option, or value, or an argument is missing.
    """
    context = virtbackup.make_context("virtbackup", list(words))
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, command, rest = context.command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, rest, parent=context)
