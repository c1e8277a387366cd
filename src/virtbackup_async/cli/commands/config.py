"""``virtbackup config``: commands about the configuration file itself; none asks libvirt."""

import click

from virtbackup_async.cli.lazy_commands import EXIT_STATUSES, Entry, LazyGroup


class ConfigCommands(LazyGroup):
    """The commands below ``virtbackup config``."""

    entries = {  # noqa: RUF012 -- never changed
        "check": Entry(
            "virtbackup_async.cli.commands.config_check", "Report what is wrong or out of date."
        ),
        "example": Entry(
            "virtbackup_async.cli.commands.config_example",
            "Print an example with every key, each with a comment.",
        ),
        "migrate": Entry(
            "virtbackup_async.cli.commands.config_migrate", "Rewrite the file with today's keys."
        ),
        "protect": Entry(
            "virtbackup_async.cli.commands.config_protect",
            "Print what a target needs so that a host can only add to it.",
        ),
        "schema": Entry(
            "virtbackup_async.cli.commands.config_schema", "Print the JSON Schema, for editors."
        ),
    }


@click.group("config", cls=ConfigCommands, epilog=EXIT_STATUSES)
def command() -> None:
    """Check the configuration file, or bring it up to date."""
