"""The manual page, virtbackup(1), from the commands themselves; `update-docs` writes it.

click-man makes a page a command, each with its own header and date, and needs the package to be
installed; one page that can be searched is what an admin wants.
"""

import re

import click

from virtbackup_async.cli.lazy_commands import EXIT_STATUSES, Entry, LazyGroup
from virtbackup_async.cli.main import Virtbackup, virtbackup
from virtbackup_async.version import __version__

FILES = (
    ("~/.config/virt-backup/config.yml", "The configuration of a user."),
    ("/etc/virt-backup/config.yml", "The configuration of the host."),
    ("/run/virtbackup/virtbackup-*.lock", "Locks, one a domain; they may stay."),
    ("/run/lock/virtbackup-*.lock", "The same, for other users to see."),
    ("/var/lib/virtbackup", "What is to be undone if a backup is killed; never remove it."),
)


def man_page() -> str:
    """Return the page as roff."""
    lines = [f'.TH VIRTBACKUP 1 "" "virtbackup {__version__}" "User Commands"']
    lines += [".SH NAME", "virtbackup \\- back up and restore libvirt/KVM virtual machines"]
    lines += [".SH SYNOPSIS", ".B virtbackup", *roff("[OPTIONS] COMMAND [ARGS]...")]
    lines += [".SH DESCRIPTION", *roff(virtbackup.help or ""), ".SH OPTIONS", *options(virtbackup)]
    lines.append(".SH COMMANDS")
    lines += sections(Virtbackup.entries)
    lines += [".SH EXIT STATUS", *roff(EXIT_STATUSES.partition(": ")[2])]
    lines.append(".SH FILES")
    for path, what in FILES:
        lines += [".TP", f".I {escaped(path)}", *roff(what)]
    return "\n".join(lines) + "\n"


def sections(entries: dict[str, Entry], above: str = "") -> list[str]:
    """Return the commands, each followed by those below it."""
    lines = []
    for name, entry in entries.items():
        command = entry.load()
        lines += section(above + name, command, entry.aliases)
        if isinstance(command, LazyGroup):
            lines += sections(command.entries, f"{above}{name} ")
    return lines


def section(name: str, command: click.Command, aliases: tuple[str, ...]) -> list[str]:
    """Return one command: its names, usage, help and options."""
    context = click.Context(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f".SS {', '.join((name, *aliases))}", f".B virtbackup {name}", *roff(usage), ".PP"]
    for paragraph in (command.help or "").split("\n\n"):
        lines += [*roff(paragraph), ".PP"]
    return lines + options(command)


def options(command: click.Command) -> list[str]:
    """Return each option with its help."""
    lines = []
    for option in command.params:
        if isinstance(option, click.Option):
            names = ", ".join(sorted(option.opts, key=len))
            value = "" if option.is_flag or option.count else f" {option.metavar or 'VALUE'}"
            lines += [".TP", f".B {escaped(names + value)}", *roff(option.help or "")]
    return lines


def roff(text: str) -> list[str]:
    """Return a paragraph as lines that roff takes for text alone."""
    return [escaped(re.sub(r"\s+", " ", text).strip())]


def escaped(text: str) -> str:
    """Return the text with nothing in it that roff would obey."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
