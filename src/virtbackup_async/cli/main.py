"""The ``virtbackup`` command: options before the command, and errors of the command line."""

import os
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from virtbackup_async.cli.failure import say, settle_stdout
from virtbackup_async.cli.lazy_commands import EXIT_STATUSES, Entry, LazyGroup
from virtbackup_async.cli.options import Settings, config_option
from virtbackup_async.cli.standard_streams import open_closed
from virtbackup_async.errors import ConfigError, code_of
from virtbackup_async.version import __version__

_COMMANDS = {
    "init": Entry(
        "virtbackup_async.cli.commands.init",
        "Look around on this host, and write a configuration.",
    ),
    "backup": Entry(
        "virtbackup_async.cli.commands.backup", "Back up groups, or single domains.", ("bak",)
    ),
    "copy": Entry("virtbackup_async.cli.commands.copy", "Copy backups into another target."),
    "restore": Entry("virtbackup_async.cli.commands.restore", "Restore the disks of one backup."),
    "export": Entry(
        "virtbackup_async.cli.commands.export", "Write one disk of a backup as a plain image."
    ),
    "serve": Entry(
        "virtbackup_async.cli.commands.serve",
        "Let other programs read the disks of one backup, over NBD.",
    ),
    "clean": Entry(
        "virtbackup_async.cli.commands.clean",
        "Remove backups by the retention rules, and what killed ones left behind.",
        ("cl",),
    ),
    "forget": Entry("virtbackup_async.cli.commands.forget", "Remove single backups."),
    "pin": Entry(
        "virtbackup_async.cli.commands.pin", "Keep a backup from being cleaned.", attribute="pin"
    ),
    "unpin": Entry(
        "virtbackup_async.cli.commands.pin",
        "Let a pinned backup be cleaned again.",
        attribute="unpin",
    ),
    "accept": Entry(
        "virtbackup_async.cli.commands.accept",
        "Accept that a target is older than it was.",
    ),
    "doctor": Entry(
        "virtbackup_async.cli.commands.doctor", "Look for problems that would make backups fail."
    ),
    "verify": Entry(
        "virtbackup_async.cli.commands.verify", "Read backups and compare them with their digests."
    ),
    "repair": Entry(
        "virtbackup_async.cli.commands.repair",
        "Make a damaged repository usable again.",
    ),
    "list": Entry("virtbackup_async.cli.commands.listing", "List the backups of groups.", ("ls",)),
    "show": Entry("virtbackup_async.cli.commands.show", "Show all that is known of one backup."),
    "diff": Entry(
        "virtbackup_async.cli.commands.diff", "Show how much changed between two backups."
    ),
    "status": Entry(
        "virtbackup_async.cli.commands.status",
        "Show whether every guest can be restored, what runs, and what comes next.",
    ),
    "check": Entry(
        "virtbackup_async.cli.commands.check", "Print one line for a monitoring, as Nagios has it."
    ),
    "log": Entry("virtbackup_async.cli.commands.log", "Show the last runs."),
    "stats": Entry(
        "virtbackup_async.cli.commands.stats",
        "Show how much data the backups hold, and how much space they take.",
    ),
    "report": Entry(
        "virtbackup_async.cli.commands.report",
        "Write a page that shows whether every guest can be restored.",
    ),
    "key": Entry(
        "virtbackup_async.cli.commands.key", "List and change the keys of encrypted backups."
    ),
    "config": Entry(
        "virtbackup_async.cli.commands.config", "Check the configuration, or bring it up to date."
    ),
    "systemd": Entry(
        "virtbackup_async.cli.commands.systemd", "Have systemd start backups every night."
    ),
    "store-server": Entry(
        "virtbackup_async.cli.commands.store_server",
        "Serve a target to another machine; `ssh` starts it there.",
    ),
    "completion": Entry(
        "virtbackup_async.cli.commands.completion", "Print the script for a shell's completion."
    ),
    "help": Entry("virtbackup_async.cli.commands.help", "Show the help of a command."),
}


class Virtbackup(LazyGroup):
    """The command line itself."""

    entries = _COMMANDS


@click.group(
    cls=Virtbackup,
    epilog=EXIT_STATUSES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@config_option
@click.option("-d", "--debug", is_flag=True, help="Log everything; show tracebacks.")
@click.option("-q", "quiet", is_flag=True, help="Print only warnings and failures.")
@click.option("-v", "verbose", is_flag=True, help="Print more details.")
@click.version_option(__version__, prog_name="virtbackup", message="%(prog)s %(version)s")
@click.pass_context
def virtbackup(
    ctx: click.Context, config_path: Path | None, *, debug: bool, quiet: bool, verbose: bool
) -> None:
    """Back up and restore libvirt/KVM virtual machines."""
    ctx.obj = Settings(config_path=config_path, debug=debug, quiet=quiet, verbose=verbose)


def run_and_end() -> NoReturn:
    """Run the command line, and end the process at once; ``virtbackup`` is this function.

    Everything is closed in order by then: the interpreter's teardown would only keep the admin
    waiting.
    """
    open_closed()
    # Loading numpy starts a BLAS thread for each CPU, which takes 70 ms of one; nothing uses them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        main()
    except SystemExit as end:
        # stderr may be a file on a full disk: the exit code still has the result.
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 0)


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    try:
        status = virtbackup.main(prog_name="virtbackup", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        with suppress(OSError):
            sys.stdout.write(f"{error.format_message()}\n")
        status = error.exit_code
    except click.UsageError as error:
        _refuse(error)
    except OSError as error:  # from a help text; commands report it themselves
        if not isinstance(error, BrokenPipeError):
            say(f"the help cannot be written: {error.strerror}")
        status = 1
    except click.ClickException as error:
        say(error.format_message())
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        # At once: an orderly end would wait for a renderer that may be stuck in a write.
        os._exit(128 + signal.SIGINT)
    settle_stdout()
    sys.exit(status or 0)


def _refuse(error: click.UsageError) -> NoReturn:
    """Report the error in one line, also as JSON if the command line asks for it, and exit."""
    path = error.ctx.command_path if error.ctx else "virtbackup"
    # click breaks a list of choices into lines.
    text = " ".join(_whole_options(error).format_message().split()).rstrip(".")
    end = "" if text.endswith("?") else "."
    message = f"{text[:1].lower()}{text[1:]}{end} Run '{path} --help' to see what there is."
    if _wants_json(sys.argv[1:]):
        _print_summary(message)
    say(message)
    settle_stdout()
    sys.exit(ConfigError.exit_code)


def _whole_options(error: click.UsageError) -> click.UsageError:
    """Suggest only full names of options: cut ones are accepted, but nobody looks for them."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return error
    known = {name for param in error.ctx.command.get_params(error.ctx) for name in param.opts}
    likely = [name for name in error.possibilities or () if name in known]
    return click.NoSuchOption(error.option_name, possibilities=likely, ctx=error.ctx)


def _wants_json(arguments: list[str]) -> bool:
    """Return whether ``--json``, perhaps cut short, is among the options."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(len(word) > len("--") and "--json".startswith(word) for word in options)


def _print_summary(message: str) -> None:
    """Print the summary that ends every command, for one that did not start."""
    # Only this rare path needs them; the help should not wait for them.
    from virtbackup_async.events import Summary  # noqa: PLC0415 -- see above
    from virtbackup_async.reporting.json_lines import json_line  # noqa: PLC0415 -- see above

    kind = ConfigError
    summary = Summary(
        ok=False,
        done=(),
        failed=(),
        exit_code=kind.exit_code,
        error=message,
        error_code=code_of(kind),
    )
    sys.stdout.write(json_line(summary, datetime.now(UTC).astimezone()) + "\n")
