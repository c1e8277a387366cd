"""The click classes of the command line: commands loaded when they are run, options cut short.

A command's module is imported when that command is typed, so ``virtbackup --help`` starts without
libvirt, lxml or zstandard. Long options may be cut to a unique beginning (``--conf``), as
virt-backup's parser allowed.
"""

import copy
import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from virtbackup_async.errors import exit_meanings

EXIT_STATUSES = "Exit status: {}.".format(
    ", ".join(
        (
            "0 all went well",
            *(f"{code} {meaning}" for code, meaning in sorted(exit_meanings().items())),
            "128+N stopped by signal N",
        )
    )
)


class Command(click.Command):
    """A command; its long options may be cut short as long as they stay unique."""

    def make_parser(self, ctx: click.Context) -> Any:  # noqa: ANN401 -- click's type is private
        return _accept_cut_options(super().make_parser(ctx), self.get_params(ctx), ctx)


def subcommand(name: str) -> Callable[[Callable[..., None]], Command]:
    """Make the command ``name`` of a function with options."""
    return click.command(name, cls=Command, epilog=EXIT_STATUSES)


class Entry(NamedTuple):
    """A command that is not loaded yet: ``module`` has the click command ``attribute``."""

    module: str
    summary: str
    aliases: tuple[str, ...] = ()
    attribute: str = "command"

    def load(self) -> click.Command:
        """Import the command."""
        command: click.Command = getattr(importlib.import_module(self.module), self.attribute)
        return command


class LazyGroup(click.Group):
    """A group that knows its commands by name and summary, and imports one to run it."""

    entries: dict[str, Entry] = {}  # noqa: RUF012 -- set once by ``cli.main``

    def make_parser(self, ctx: click.Context) -> Any:  # noqa: ANN401 -- click's type is private
        return _accept_cut_options(super().make_parser(ctx), self.get_params(ctx), ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the command as the help of the group shows it: its name and a line."""
        for name, entry in self.entries.items():
            if cmd_name == name or cmd_name in entry.aliases:
                return click.Command(name=name, help=entry.summary)
        return None

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 -- click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the commands, each with its short name."""
        rows = [(", ".join((n, *e.aliases)), e.summary) for n, e in self.entries.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            # Only this rare path needs it; the help should not wait for it.
            from virtbackup_async.config.suggestion import did_you_mean  # noqa: PLC0415 -- see above

            names = [
                word for known, entry in self.entries.items() for word in (known, *entry.aliases)
            ]
            ctx.fail(f"no such command {name!r}{did_you_mean(name, names)}")
        _, stub, rest = super().resolve_command(ctx, args)
        if stub is None or stub.name is None:
            return None, None, rest
        return stub.name, self.entries[stub.name].load(), rest


def _accept_cut_options(
    parser: Any,  # noqa: ANN401 -- click's type is private
    params: Sequence[click.Parameter],
    ctx: click.Context,
) -> Any:  # noqa: ANN401
    options = [param for param in params if isinstance(param, click.Option)]
    for option, beginnings in _unique_beginnings(options):
        cut = copy.copy(option)
        cut.opts = beginnings
        cut.add_to_parser(parser, ctx)
    return parser


def _unique_beginnings(options: list[click.Option]) -> list[tuple[click.Option, list[str]]]:
    """Return each option with the unique beginnings of its long name."""
    names = {name: option for option in options for name in option.opts if name.startswith("--")}
    found = []
    for name, option in names.items():
        cuts = [name[:end] for end in range(len("--x"), len(name))]
        unique = [cut for cut in cuts if sum(other.startswith(cut) for other in names) == 1]
        if unique:
            found.append((option, unique))
    return found
